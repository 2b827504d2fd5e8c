//! The ground for checks in 32-bit protected mode: flat segments of both levels, a task, handlers
//! of all vectors that note what was raised and go on behind the check.

use std::ops::{Deref, DerefMut};

use iced_x86::code_asm::*;

use super::features::Feature;
use super::ground::{self, stub};
pub(super) use super::ground::{
    BACK, GDT, GDT_SIZE, IDT, INNER_STACK, SCRATCH, STACK, TSS, USER_STACK, VARIABLES, VECTORS,
};
use super::script::{self, Case, Script};
use super::{Check, Kind, NOTHING, Rom, exception};
use crate::rom::tables::{self, CODE, DATA, PAGES, SIZE32, segment, table_register};
use crate::rom::{Emit, Mode, Placed, ROM_BASE, RomBuilder, Section, emit};

/// The number of the next report.
const INDEX: u32 = VARIABLES;
/// Where handlers go: the address of a routine, [`RECOVER`] if nothing else is said.
pub(super) const HOOK: u32 = VARIABLES + 4;
/// Where checks go on, and with which stack.
pub(super) const RESUME: u32 = VARIABLES + 8;
const RESUME_STACK: u32 = VARIABLES + 12;
/// What has been raised: an outcome, then the pieces of it and of the stack frame.
pub(super) const OUTCOME: u32 = VARIABLES + 16;
pub(super) const RAISED_EIP: u32 = VARIABLES + 20;
pub(super) const RAISED_CS: u32 = VARIABLES + 24;
pub(super) const RAISED_EFLAGS: u32 = VARIABLES + 28;
pub(super) const RAISED_CR2: u32 = VARIABLES + 32;
pub(super) const RAISED_DR6: u32 = VARIABLES + 36;
/// The number of the case of a matrix.
pub(super) const CASE: u32 = VARIABLES + 40;
/// For the checks.
pub(super) const SPARE: u32 = VARIABLES + 64;

/// Selectors.
pub(super) const CODE0: u16 = 0x08;
pub(super) const DATA0: u16 = 0x10;
pub(super) const CODE3: u16 = 0x1b;
pub(super) const DATA3: u16 = 0x23;
pub(super) const TASK: u16 = 0x28;
/// The first selector that is free for checks.
pub(super) const FREE: u16 = 0x40;

pub(super) const USER: u8 = 0x60;
pub(super) const TSS32: u8 = 0x89;
const INTERRUPT_GATE: u8 = 0x8e;

/// The routine that notes what was raised and resumes the checks.
pub(super) const RECOVER: &str = "recover";

/// A ROM's checks being written.
pub(super) struct Kit<'s, 'rom> {
    script: Script<'s, 'rom>,
    /// How far from the code of level 0 that of level 3 lies, by linear address.
    pub(super) user_alias: u32,
}

impl<'s, 'rom> Deref for Kit<'s, 'rom> {
    type Target = Script<'s, 'rom>;
    fn deref(&self) -> &Self::Target {
        &self.script
    }
}

impl DerefMut for Kit<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.script
    }
}

/// Builds a ROM whose checks `write` emits, in 32-bit code at level 0. All of it needs `needs`.
pub(super) fn rom(
    name: &'static str,
    about: &'static str,
    needs: &[Feature],
    write: impl Fn(&mut Kit<'_, '_>) -> Emit,
) -> Emit<Rom> {
    let (_, placed, _) = build(&write, None)?;
    let (rom, main, checks) = build(&write, Some(&placed))?;
    let (mut rom, main) = (rom, main.address_of("main"));
    let real = rom.section(Mode::Bits16, 0, |a| enter(a, main))?;
    let image = rom.finish(real.address_of("real") as u16);
    Ok(Rom { name, about, needs: needs.to_vec(), in_virtual_time: false, image, checks })
}

/// Writes handlers and checks, with labels where `placed` says.
fn build(
    write: &impl Fn(&mut Kit<'_, '_>) -> Emit,
    placed: Option<&Placed>,
) -> Emit<(RomBuilder, Placed, Vec<Check>)> {
    let mut rom = RomBuilder::new();
    let handlers = rom.section(Mode::Bits32, ROM_BASE, handlers)?;
    let idt: Vec<u64> = (0..VECTORS)
        .map(|vector| gate(CODE0, handlers.address_of(&stub(vector)), INTERRUPT_GATE | USER, 0))
        .collect();
    let idt = rom.constant(&tables::bytes(&idt));
    let recover = handlers.address_of(RECOVER);
    let mut checks = Vec::new();
    let main = rom.section(Mode::Bits32, ROM_BASE, |a| {
        begin(a, ROM_BASE + idt, recover)?;
        let mut kit = Kit { script: Script::new(a, placed), user_alias: 0 };
        write(&mut kit)?;
        checks = kit.script.into_checks();
        script::emit_end(a)?;
        emit_report(a)
    })?;
    Ok((rom, main, checks))
}

/// The GDT: flat segments of both levels, and a task.
fn gdt() -> Vec<u64> {
    let flat = |access| segment(0, 0xf_ffff, access, PAGES | SIZE32);
    vec![
        0,
        flat(CODE),
        flat(DATA),
        flat(CODE | USER),
        flat(DATA | USER),
        segment(TSS, 0x67, TSS32, 0),
    ]
}

/// A gate of 8 bytes (SDM vol. 3A, §6.11 and figures 5-8, 8-6).
pub(super) const fn gate(selector: u16, offset: u32, access: u8, count: u8) -> u64 {
    (offset & 0xffff) as u64
        | (selector as u64) << 16
        | (count as u64) << 32
        | (access as u64) << 40
        | (offset as u64 >> 16) << 48
}

/// Real mode: to protected mode.
fn enter(a: &mut Section<'_>, main: u32) -> Emit {
    let gdt = gdt();
    let table = a.constant(&tables::bytes(&gdt));
    let register = a.constant(&table_register(u64::from(ROM_BASE + table), 8 * gdt.len()));
    emit!(a;
        at("real");
        cli();
        lgdt(ptr(register).cs());
        mov(eax, cr0);
        or(eax, 1);
        mov(cr0, eax);
        jmp_far32(CODE0, main);
    );
    Ok(())
}

/// Copies the tables to RAM, clears the rest of it, and loads all registers.
fn begin(a: &mut Section<'_>, idt: u32, recover: u32) -> Emit {
    let gdt = tables::bytes(&gdt());
    let table = a.constant(&gdt);
    let gdt_register = a.constant(&table_register(GDT.into(), GDT_SIZE as usize));
    let idt_register = a.constant(&table_register(IDT.into(), 8 * usize::from(VECTORS)));
    emit!(a;
        at("main");
        mov(eax, u32::from(DATA0));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        mov(fs, eax);
        mov(gs, eax);
        mov(esp, STACK);
        cld();
        xor(eax, eax);
        mov(edi, GDT);
        mov(ecx, (SCRATCH - GDT) / 4);
        rep_stosd();
        mov(esi, table);
        mov(edi, GDT);
        mov(ecx, (gdt.len() / 4) as u32);
        rep_movsd();
        mov(esi, idt);
        mov(edi, IDT);
        mov(ecx, 2 * u32::from(VECTORS));
        rep_movsd();
        mov(dword_ptr(TSS + 4), INNER_STACK);
        mov(dword_ptr(TSS + 8), u32::from(DATA0));
        mov(word_ptr(TSS + 0x66), 0x68);
        mov(dword_ptr(HOOK), recover);
        lgdt(ptr(gdt_register));
        lidt(ptr(idt_register));
        mov(eax, u32::from(TASK));
        ltr(ax);
    );
    Ok(())
}

/// EAX: a value to report. Changes no other register and no flag.
fn emit_report(a: &mut Section<'_>) -> Emit {
    ground::emit_report(
        a,
        INDEX,
        |a| {
            emit!(a; pushfd(); pushad(); xor(ebx, ebx););
            Ok(())
        },
        |a| {
            emit!(a; popad(); popfd(););
            Ok(())
        },
    )
}

/// The stubs of all vectors, and where they lead.
fn handlers(a: &mut Section<'_>) -> Emit {
    ground::emit_stubs(a)?;
    emit!(a;
        at("hook");
        // Only CS is sure to be flat.
        jmp(dword_ptr(HOOK).cs());

        at(RECOVER);
        mov(eax, u32::from(DATA0));
        mov(ds, eax);
        mov(es, eax);
        mov(fs, eax);
        mov(gs, eax);
        pop(eax);
        pop(ecx);
        cmp(eax, u32::from(BACK));
        je -> ".resume";
        movzx(ecx, cx);
        shl(eax, 16);
        lea(eax, ptr(eax + ecx + exception(0, 0)));
        mov(dword_ptr(OUTCOME), eax);
        pop(dword_ptr(RAISED_EIP));
        pop(dword_ptr(RAISED_CS));
        pop(dword_ptr(RAISED_EFLAGS));
        mov(eax, cr2);
        mov(dword_ptr(RAISED_CR2), eax);
        mov(eax, dr6);
        mov(dword_ptr(RAISED_DR6), eax);
        at(".resume");
        mov(eax, u32::from(DATA0));
        mov(ss, eax);
        mov(esp, dword_ptr(RESUME_STACK));
        jmp(dword_ptr(RESUME));
    );
    Ok(())
}

impl Kit<'_, '_> {
    /// Executes `code`, whatever it raises, and goes on behind it with flat segments and
    /// [`OUTCOME`] set.
    pub(super) fn attempt(&mut self, code: impl FnOnce(&mut Self) -> Emit) -> Emit {
        let (before, after) = (self.fresh("attempt"), self.fresh("after"));
        let resume = self.address_of(&after);
        emit!(self;
            at(&before);
            mov(dword_ptr(RESUME), resume);
            mov(dword_ptr(RESUME_STACK), esp);
            mov(dword_ptr(OUTCOME), NOTHING);
        );
        code(self)?;
        emit!(self;
            at(&after);
            mov(eax, u32::from(DATA0));
            mov(ds, eax);
            mov(es, eax);
            mov(fs, eax);
            mov(gs, eax);
            mov(ss, eax);
            mov(esp, dword_ptr(RESUME_STACK));
        );
        Ok(())
    }

    /// Executes `code` and reports what it raises.
    pub(super) fn probe(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        expected: u32,
        code: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        self.attempt(code)?;
        self.mov(eax, dword_ptr(OUTCOME))?;
        self.report(name, source, [expected.into(), u64::MAX], Kind::Outcome)
    }

    /// Executes `code` and reports EAX.
    pub(super) fn value(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        [expected, mask]: [u32; 2],
        code: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        code(self)?;
        self.report(name, source, [expected, mask].map(u64::from), Kind::Number)
    }

    /// Reports how far behind a label the return address of the exception is.
    pub(super) fn returns_to(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        label: &str,
    ) -> Emit {
        self.value(name, source, [0, u32::MAX], |a| {
            let address = a.address_of(label);
            emit!(a; mov(ecx, address); mov(eax, dword_ptr(RAISED_EIP)); sub(eax, ecx););
            Ok(())
        })
    }

    /// Executes `code` for each case, with its number in [`CASE`], and reports the value that it
    /// leaves in [`OUTCOME`]: what it has raised, unless it changes that.
    pub(super) fn matrix(
        &mut self,
        source: &'static str,
        kind: Kind,
        cases: impl Iterator<Item = Case>,
        code: impl FnOnce(&mut Self) -> Emit,
        after: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        ground::matrix(self, [CASE, OUTCOME], source, kind, cases, |a| {
            a.attempt(code)?;
            after(a)
        })
    }

    /// Continues at level 3, with flat segments and what `flags` sets in EFLAGS. Ends what
    /// [`Kit::attempt`] executes with [`Kit::back`].
    pub(super) fn enter_user(&mut self, flags: u32) -> Emit {
        let user = self.fresh("user");
        let entry = self.address_of(&user).wrapping_add(self.user_alias);
        emit!(self;
            push(u32::from(DATA3));
            push(USER_STACK);
            pushfd();
            or(dword_ptr(esp), flags);
            push(u32::from(CODE3));
            mov(ecx, entry);
            push(ecx);
            mov(ecx, u32::from(DATA3));
            mov(ds, ecx);
            mov(es, ecx);
            iretd();
            at(&user);
        );
        Ok(())
    }

    /// Back from level 3.
    pub(super) fn back(&mut self) -> Emit {
        self.int(i32::from(BACK))
    }

    /// Writes a descriptor; changes no register.
    pub(super) fn descriptor(&mut self, selector: u16, descriptor: u64) -> Emit {
        let at = GDT + u32::from(selector & !7);
        emit!(self;
            mov(dword_ptr(at), descriptor as u32);
            mov(dword_ptr(at + 4), (descriptor >> 32) as u32);
        );
        Ok(())
    }
}
