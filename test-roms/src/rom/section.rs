//! A section of code: iced's assembler with named labels and a few idioms.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, Code, Instruction};

use super::{Emit, Mode, RomBuilder};

/// Emits instructions, one a line: `mov(eax, 1);` calls the assembler's (or [`Section`]'s) method,
/// `jnz -> "name";` branches to a label, `lea(rax) -> "name";` addresses it relative to RIP.
/// The enclosing function returns [`Emit`].
macro_rules! emit {
    (@ $a:ident $op:ident) => { $a.$op()? };
    (@ $a:ident $op:ident ( $($arg:expr),* )) => { $a.$op($($arg),*)? };
    (@ $a:ident $op:ident -> $name:expr) => {{
        let target = $a.target($name);
        $a.$op(target)?
    }};
    (@ $a:ident $op:ident ( $($arg:expr),* ) -> $name:expr) => {{
        let target = $a.target($name);
        $a.$op($($arg,)* ptr(target))?
    }};
    ($a:ident; $( $op:ident $( ( $($arg:expr),* $(,)? ) )? $( -> $name:expr )? ; )*) => {{
        $( $crate::rom::emit!(@ $a $op $( ( $($arg),* ) )? $( -> $name )?); )*
    }};
}
pub(crate) use emit;

struct Label {
    code: CodeLabel,
    bound: bool,
}

/// A section being written. It is iced's [`CodeAssembler`], with labels that have names.
///
/// A name that starts with a dot is local to the label before it that does not.
pub struct Section<'rom> {
    rom: &'rom mut RomBuilder,
    assembler: CodeAssembler,
    base: u32,
    labels: HashMap<String, Label>,
    scope: String,
}

impl<'rom> Section<'rom> {
    pub(super) fn new(rom: &'rom mut RomBuilder, mode: Mode, base: u32) -> Emit<Self> {
        Ok(Self {
            rom,
            assembler: CodeAssembler::new(mode.bitness())?,
            base,
            labels: HashMap::new(),
            scope: String::new(),
        })
    }

    /// Places constant bytes in the ROM and returns their address as this section sees it.
    pub fn constant(&mut self, bytes: &[u8]) -> u32 {
        self.base + self.rom.constant(bytes)
    }

    /// Places a text, ended by a zero byte, and returns its address as this section sees it.
    ///
    /// # Panics
    ///
    /// If the text is not ASCII: VGA text memory has no other encoding in common with terminals.
    pub fn text(&mut self, text: &str) -> u32 {
        assert!(text.is_ascii(), "guest texts are ASCII: {text}");
        self.constant(&[text.as_bytes(), &[0]].concat())
    }

    fn full_name(&self, name: &str) -> String {
        if name.starts_with('.') { format!("{}{name}", self.scope) } else { name.to_owned() }
    }

    fn label(&mut self, full_name: String) -> &mut Label {
        let assembler = &mut self.assembler;
        self.labels
            .entry(full_name)
            .or_insert_with(|| Label { code: assembler.create_label(), bound: false })
    }

    /// The label of this name, whether bound already or not.
    pub fn target(&mut self, name: &str) -> CodeLabel {
        let full_name = self.full_name(name);
        self.label(full_name).code
    }

    /// Binds the label of this name here.
    pub fn at(&mut self, name: &str) -> Emit {
        let full_name = self.full_name(name);
        if !name.starts_with('.') {
            self.scope.clone_from(&full_name);
        }
        let mut code = self.label(full_name.clone()).code;
        self.assembler.set_label(&mut code)?;
        // An instruction without bytes: several labels may then be bound to one place.
        self.assembler.add_instruction(Instruction::with(Code::Zero_bytes))?;
        self.labels.insert(full_name, Label { code, bound: true });
        Ok(())
    }

    /// How many instructions the section holds so far.
    pub fn instruction_count(&self) -> usize {
        self.instructions().iter().filter(|i| i.code() != Code::Zero_bytes).count()
    }

    /// Writes a constant to a port, through EDX and AL.
    pub fn outb(&mut self, port: u16, value: u8) -> Emit {
        self.mov(al, u32::from(value))?;
        self.mov(edx, u32::from(port))?;
        self.out(dx, al)
    }

    /// Reads a port into AL, through EDX.
    pub fn inb(&mut self, port: u16) -> Emit {
        self.mov(edx, u32::from(port))?;
        self.in_(al, dx)
    }

    /// `REP MOVSD`.
    pub fn rep_movsd(&mut self) -> Emit {
        self.assembler.rep().movsd()
    }

    /// `REP STOSD`.
    pub fn rep_stosd(&mut self) -> Emit {
        self.assembler.rep().stosd()
    }

    /// A far jump with a 32-bit offset, also from 16-bit code.
    pub fn jmp_far32(&mut self, selector: u16, offset: u32) -> Emit {
        self.add_instruction(Instruction::with_far_branch(Code::Jmp_ptr1632, selector, offset)?)
    }

    pub(super) fn assemble(mut self, address: u32) -> Emit<(Vec<u8>, Placed)> {
        for (name, label) in &self.labels {
            assert!(label.bound, "label {name} is used but never bound");
        }
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = self.assembler.assemble_options(u64::from(address), options)?;
        let mut addresses = HashMap::new();
        for (name, label) in self.labels {
            addresses.insert(name, result.label_ip(&label.code)? as u32);
        }
        Ok((result.inner.code_buffer, Placed { addresses }))
    }
}

impl Deref for Section<'_> {
    type Target = CodeAssembler;
    fn deref(&self) -> &CodeAssembler {
        &self.assembler
    }
}

impl DerefMut for Section<'_> {
    fn deref_mut(&mut self) -> &mut CodeAssembler {
        &mut self.assembler
    }
}

/// Where a section's labels came to lie.
#[derive(Debug)]
pub struct Placed {
    addresses: HashMap<String, u32>,
}

impl Placed {
    /// The linked address of a label.
    ///
    /// # Panics
    ///
    /// If the section has no label of this name.
    pub fn address_of(&self, label: &str) -> u32 {
        *self.addresses.get(label).unwrap_or_else(|| panic!("no label {label}"))
    }
}
