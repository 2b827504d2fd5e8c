//! The ground for checks in 64-bit mode: the lowest GiB mapped one to one for level 0, its first
//! 2 MiB once more for level 3, segments of all modes and levels, a task, handlers of all vectors.

use std::ops::{Deref, DerefMut};

use iced_x86::code_asm::*;

use crate::conformance::features::{Feature, LONG_MODE};
use crate::conformance::ground::{self, VECTORS, stub};
pub(in crate::conformance) use crate::conformance::ground::{
    BACK, GDT, GDT_SIZE, IDT, INNER_STACK, SCRATCH, STACK, TSS, USER_STACK, VARIABLES,
};
use crate::conformance::script::{self, Case, Script};
use crate::conformance::{Check, Kind, NOTHING, Rom, exception};
use crate::rom::tables::{self, CODE, DATA, LONG, PAGES, SIZE32, TSS64, segment, table_register};
use crate::rom::{Emit, Mode, Placed, ROM_BASE, RomBuilder, Section, emit};

/// Tables of pages: of the highest level (with five), down to page directories.
pub(in crate::conformance) const PML5: u32 = 0x7_0000;
pub(in crate::conformance) const PML4: u32 = PML5 + 0x1000;
pub(in crate::conformance) const POINTERS: u32 = PML5 + 0x2000;
pub(in crate::conformance) const DIRECTORY: u32 = PML5 + 0x3000;
/// The directory of the fourth GiB, where the chips are.
const HIGH_DIRECTORY: u32 = PML5 + 0x4000;

/// How far the copy for level 3 lies from that for level 0, by linear address.
pub(in crate::conformance) const USER_ALIAS: u32 = 0x20_0000;

const INDEX: u32 = VARIABLES;
/// Where handlers go: the address of a routine, [`RECOVER`] if nothing else is said.
pub(in crate::conformance) const HOOK: u32 = VARIABLES + 8;
/// Where checks go on, and with which stack.
pub(in crate::conformance) const RESUME: u32 = VARIABLES + 0x10;
pub(in crate::conformance) const RESUME_STACK: u32 = VARIABLES + 0x18;
/// What has been raised: an outcome, and the stack frame.
pub(in crate::conformance) const OUTCOME: u32 = VARIABLES + 0x20;
pub(in crate::conformance) const RAISED_CR2: u32 = VARIABLES + 0x28;
pub(in crate::conformance) const RAISED_RIP: u32 = VARIABLES + 0x30;
pub(in crate::conformance) const RAISED_CS: u32 = VARIABLES + 0x38;
pub(in crate::conformance) const RAISED_FLAGS: u32 = VARIABLES + 0x40;
pub(in crate::conformance) const RAISED_RSP: u32 = VARIABLES + 0x48;
pub(in crate::conformance) const RAISED_SS: u32 = VARIABLES + 0x50;
/// Where the handler's stack was with this frame, and what SS was.
pub(in crate::conformance) const FRAME: u32 = VARIABLES + 0x58;
pub(in crate::conformance) const FRAME_SS: u32 = VARIABLES + 0x60;
/// The number of the case of a matrix.
pub(in crate::conformance) const CASE: u32 = VARIABLES + 0x68;
/// What [`Kit::value`] reports.
pub(in crate::conformance) const VALUE: u32 = VARIABLES + 0x70;
/// For the checks, 128 bytes.
pub(in crate::conformance) const SPARE: u32 = VARIABLES + 0x80;

/// Selectors, in the order that SYSRET and SYSEXIT want.
pub(in crate::conformance) const CODE0: u16 = 0x08;
pub(in crate::conformance) const DATA0: u16 = 0x10;
pub(in crate::conformance) const COMPAT3: u16 = 0x1b;
pub(in crate::conformance) const DATA3: u16 = 0x23;
pub(in crate::conformance) const CODE3: u16 = 0x2b;
pub(in crate::conformance) const TASK: u16 = 0x30;
pub(in crate::conformance) const COMPAT0: u16 = 0x40;
pub(in crate::conformance) const REAL0: u16 = 0x48;
pub(in crate::conformance) const REAL_DATA: u16 = 0x50;
/// The first selector that is free for checks.
pub(in crate::conformance) const FREE: u16 = 0x60;

pub(in crate::conformance) const USER: u8 = 0x60;
/// Bits of page-table entries.
pub(in crate::conformance) const PRESENT: u32 = 1;
pub(in crate::conformance) const WRITABLE: u32 = 2;
pub(in crate::conformance) const USER_PAGE: u32 = 4;
pub(in crate::conformance) const LARGE: u32 = 0x80;

pub(in crate::conformance) const EFER: u32 = 0xc000_0080;
/// SCE, LME and NXE.
const EFER_VALUE: u32 = 0x901;
pub(in crate::conformance) const CR4_PAE: u32 = 1 << 5;
pub(in crate::conformance) const CR4_LA57: u32 = 1 << 12;
/// OSFXSR and OSXMMEXCPT.
const CR4_SSE: u32 = 3 << 9;
pub(in crate::conformance) const CR0_PG: u32 = 1 << 31;
/// PE, MP, NE.
const CR0_VALUE: u32 = 0x23;

/// The routine that notes what was raised and resumes the checks.
pub(in crate::conformance) const RECOVER: &str = "recover";
/// The routine that resumes them.
pub(in crate::conformance) const RESUMES: &str = "resume";

/// A ROM's checks being written.
pub(in crate::conformance) struct Kit<'s, 'rom> {
    script: Script<'s, 'rom>,
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

/// What a ROM is, but for its checks.
#[derive(Clone, Copy)]
pub(in crate::conformance) struct About {
    pub(in crate::conformance) name: &'static str,
    pub(in crate::conformance) about: &'static str,
    /// What it needs besides 64-bit mode.
    pub(in crate::conformance) needs: &'static [Feature],
    /// Whether linear addresses have 57 bits.
    pub(in crate::conformance) five_levels: bool,
}

/// Builds a ROM whose checks `write` emits, in 64-bit code at level 0.
pub(in crate::conformance) fn rom(
    about: About,
    write: impl Fn(&mut Kit<'_, '_>) -> Emit,
) -> Emit<Rom> {
    let (_, placed, _) = build(&write, None)?;
    let (mut rom, main, checks) = build(&write, Some(&placed))?;
    let main = main.address_of("main");
    let gdt = gdt();
    let table = ROM_BASE + rom.constant(&tables::bytes(&gdt));
    let protected =
        rom.section(Mode::Bits32, ROM_BASE, |a| to_long_mode(a, about.five_levels, main))?;
    let protected = protected.address_of("protected");
    let real = rom.section(Mode::Bits16, 0, |a| {
        let register = a.constant(&table_register(table.into(), 8 * gdt.len()));
        emit!(a;
            at("real");
            cli();
            lgdt(ptr(register).cs());
            mov(eax, 1);
            mov(cr0, eax);
            jmp_far32(COMPAT0, protected);
        );
        Ok(())
    })?;
    let image = rom.finish(real.address_of("real") as u16);
    let needs = [&[LONG_MODE], about.needs].concat();
    Ok(Rom { name: about.name, about: about.about, needs, in_virtual_time: false, image, checks })
}

/// Writes handlers and checks, with labels where `placed` says.
fn build(
    write: &impl Fn(&mut Kit<'_, '_>) -> Emit,
    placed: Option<&Placed>,
) -> Emit<(RomBuilder, Placed, Vec<Check>)> {
    let mut rom = RomBuilder::new();
    let handlers = rom.section(Mode::Bits64, ROM_BASE, handlers)?;
    let idt: Vec<u64> = (0..VECTORS)
        .flat_map(|vector| gate(CODE0, handlers.address_of(&stub(vector)).into(), 0xee, 0))
        .collect();
    let idt = rom.constant(&tables::bytes(&idt));
    let recover = handlers.address_of(RECOVER);
    let mut checks = Vec::new();
    let main = rom.section(Mode::Bits64, ROM_BASE, |a| {
        begin(a, ROM_BASE + idt, recover)?;
        let mut kit = Kit { script: Script::new(a, placed) };
        write(&mut kit)?;
        checks = kit.script.into_checks();
        script::emit_end(a)?;
        emit_report(a)
    })?;
    Ok((rom, main, checks))
}

fn gdt() -> Vec<u64> {
    let flat = |access, size| segment(0, 0xf_ffff, access, PAGES | size);
    let [task_low, task_high] = system_segment(u64::from(TSS), 0x67, TSS64);
    vec![
        0,
        flat(CODE, LONG),
        flat(DATA, SIZE32),
        flat(CODE | USER, SIZE32),
        flat(DATA | USER, SIZE32),
        flat(CODE | USER, LONG),
        task_low,
        task_high,
        flat(CODE, SIZE32),
        segment(ROM_BASE, 0xffff, CODE, 0),
        segment(0, 0xffff, DATA, 0),
    ]
}

/// The descriptor of a task or an LDT, of 16 bytes (SDM vol. 3A, figure 9-4).
pub(in crate::conformance) const fn system_segment(base: u64, limit: u32, access: u8) -> [u64; 2] {
    [segment(base as u32, limit, access, 0), base >> 32]
}

/// A gate of 16 bytes (SDM vol. 3A, figures 5-9 and 7-8).
pub(in crate::conformance) const fn gate(
    selector: u16,
    offset: u64,
    access: u8,
    ist: u8,
) -> [u64; 2] {
    let low = (offset & 0xffff)
        | (selector as u64) << 16
        | (ist as u64) << 32
        | (access as u64) << 40
        | (offset >> 16 & 0xffff) << 48;
    [low, offset >> 32]
}

/// Clears RAM, writes the tables of pages, and enters 64-bit mode.
fn to_long_mode(a: &mut Section<'_>, five_levels: bool, main: u32) -> Emit {
    const TABLE: u32 = PRESENT | WRITABLE | USER_PAGE;
    let (top, more) = if five_levels { (PML5, CR4_LA57) } else { (PML4, 0) };
    emit!(a;
        at("protected");
        mov(eax, u32::from(DATA0));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        cld();
        xor(eax, eax);
        mov(edi, GDT);
        mov(ecx, (0x8_0000 - GDT) / 4);
        rep_stosd();
        mov(dword_ptr(PML5), PML4 | TABLE);
        mov(dword_ptr(PML4), POINTERS | TABLE);
        mov(dword_ptr(POINTERS), DIRECTORY | TABLE);
        mov(dword_ptr(POINTERS + 24), HIGH_DIRECTORY | TABLE);
        mov(edi, DIRECTORY);
        mov(eax, LARGE | WRITABLE | PRESENT);
        mov(edx, 0xc000_0000 | LARGE | WRITABLE | PRESENT);
        at(".next");
        mov(dword_ptr(edi), eax);
        mov(dword_ptr(edi + HIGH_DIRECTORY - DIRECTORY), edx);
        add(eax, USER_ALIAS);
        add(edx, USER_ALIAS);
        add(edi, 8);
        cmp(edi, DIRECTORY + 0x1000);
        jb -> ".next";
        mov(dword_ptr(DIRECTORY + 8), LARGE | TABLE);
        mov(eax, CR4_PAE | CR4_SSE | more);
        mov(cr4, eax);
        mov(eax, top);
        mov(cr3, eax);
        mov(ecx, EFER);
        mov(eax, EFER_VALUE);
        xor(edx, edx);
        wrmsr();
        mov(eax, CR0_VALUE | CR0_PG);
        mov(cr0, eax);
        jmp_far32(CODE0, main);
    );
    Ok(())
}

/// Copies the tables to RAM and loads all registers.
fn begin(a: &mut Section<'_>, idt: u32, recover: u32) -> Emit {
    let gdt = tables::bytes(&gdt());
    let table = a.constant(&gdt);
    let gdt_register = a.constant(&table_register(GDT.into(), GDT_SIZE as usize));
    let idt_register = a.constant(&table_register(IDT.into(), 16 * usize::from(VECTORS)));
    emit!(a;
        at("main");
        mov(esp, STACK);
        mov(esi, table);
        mov(edi, GDT);
        mov(ecx, (gdt.len() / 4) as u32);
        rep_movsd();
        mov(esi, idt);
        mov(edi, IDT);
        mov(ecx, 4 * u32::from(VECTORS));
        rep_movsd();
        mov(dword_ptr(TSS + 4), INNER_STACK);
        mov(word_ptr(TSS + 0x66), 0x68);
        mov(dword_ptr(HOOK), recover);
        lgdt(ptr(gdt_register));
        lidt(ptr(idt_register));
        mov(eax, u32::from(TASK));
        ltr(ax);
        fninit();
        // The 8259s have nothing to say.
        outb(0x21, 0xff);
        outb(0xa1, 0xff);
    );
    Ok(())
}

/// RAX: a value to report. Changes no other register and no flag.
fn emit_report(a: &mut Section<'_>) -> Emit {
    ground::emit_report(
        a,
        INDEX,
        |a| {
            emit!(a; pushfq(); push(rax); push(rbx); push(rcx); push(rdx); push(rsi););
            emit!(a; mov(rbx, rax); shr(rbx, 32););
            Ok(())
        },
        |a| {
            emit!(a; pop(rsi); pop(rdx); pop(rcx); pop(rbx); pop(rax); popfq(););
            Ok(())
        },
    )
}

/// The stubs of all vectors, and where they lead.
fn handlers(a: &mut Section<'_>) -> Emit {
    ground::emit_stubs(a)?;
    emit!(a;
        at("hook");
        jmp(qword_ptr(HOOK));

        at(RECOVER);
        pop(rax);
        pop(rcx);
        cmp(eax, i32::from(BACK));
        je -> RESUMES;
        mov(qword_ptr(FRAME), rsp);
        mov(edx, ss);
        mov(dword_ptr(FRAME_SS), edx);
        movzx(ecx, cx);
        shl(eax, 16);
        lea(eax, ptr(rax + rcx + exception(0, 0) as i32));
        mov(dword_ptr(OUTCOME), eax);
        mov(rax, cr2);
        mov(qword_ptr(RAISED_CR2), rax);
        pop(qword_ptr(RAISED_RIP));
        pop(qword_ptr(RAISED_CS));
        pop(qword_ptr(RAISED_FLAGS));
        pop(qword_ptr(RAISED_RSP));
        pop(qword_ptr(RAISED_SS));
        at(RESUMES);
        mov(eax, u32::from(DATA0));
        mov(ss, eax);
        mov(rsp, qword_ptr(RESUME_STACK));
        jmp(qword_ptr(RESUME));
    );
    Ok(())
}

impl Kit<'_, '_> {
    /// Executes `code`, whatever it raises, and goes on behind it with [`OUTCOME`] set.
    pub(in crate::conformance) fn attempt(&mut self, code: impl FnOnce(&mut Self) -> Emit) -> Emit {
        let after = self.fresh("after");
        emit!(self;
            lea(rax) -> &after;
            mov(qword_ptr(RESUME), rax);
            mov(qword_ptr(RESUME_STACK), rsp);
            mov(dword_ptr(OUTCOME), NOTHING);
        );
        code(self)?;
        emit!(self;
            at(&after);
            mov(eax, u32::from(DATA0));
            mov(ss, eax);
            mov(rsp, qword_ptr(RESUME_STACK));
        );
        Ok(())
    }

    /// Executes `code` and reports what it raises.
    pub(in crate::conformance) fn probe(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        expected: u32,
        code: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        self.attempt(code)?;
        self.probe_ended(name, source, expected)
    }

    /// Reports what has been raised.
    pub(in crate::conformance) fn probe_ended(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        expected: u32,
    ) -> Emit {
        self.mov(eax, dword_ptr(OUTCOME))?;
        self.report(name, source, [expected.into(), u64::MAX], Kind::Outcome)
    }

    /// Executes `code` and reports RAX, or what it raises.
    pub(in crate::conformance) fn value(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        [expected, mask]: [u64; 2],
        code: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        self.outcome(code)?;
        self.report(name, source, [expected, mask], Kind::Number)
    }

    /// Executes `code`; RAX is what it leaves there, or what it raises.
    pub(in crate::conformance) fn outcome(&mut self, code: impl FnOnce(&mut Self) -> Emit) -> Emit {
        let calm = self.fresh("calm");
        self.attempt(|a| {
            code(a)?;
            a.mov(qword_ptr(VALUE), rax)
        })?;
        emit!(self;
            mov(eax, dword_ptr(OUTCOME));
            test(eax, eax);
            jnz -> &calm;
            mov(rax, qword_ptr(VALUE));
            at(&calm);
        );
        Ok(())
    }

    /// Reports 8 bytes of memory.
    pub(in crate::conformance) fn holds(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        address: u32,
        expected: u64,
    ) -> Emit {
        self.value(name, source, [expected, u64::MAX], |a| a.mov(rax, qword_ptr(address)))
    }

    /// Executes `code` for each case, with its number in [`CASE`], and reports the value that it
    /// leaves in [`OUTCOME`]: what it has raised, unless it or `after` changes that.
    pub(in crate::conformance) fn matrix(
        &mut self,
        source: &'static str,
        kind: Kind,
        cases: impl IntoIterator<Item = Case>,
        code: impl FnOnce(&mut Self) -> Emit,
        after: impl FnOnce(&mut Self) -> Emit,
    ) -> Emit {
        ground::matrix(self, [CASE, OUTCOME], source, kind, cases, |a| {
            a.attempt(code)?;
            after(a)
        })
    }

    /// Continues at level 3 with what `flags` sets in RFLAGS, in 64-bit code. Ends what
    /// [`Kit::attempt`] executes with [`Kit::back`].
    pub(in crate::conformance) fn enter_user(&mut self, flags: u32) -> Emit {
        self.enter([CODE3, DATA3], USER_ALIAS, flags)
    }

    /// Executes 32-bit code of compatibility mode, at level 0 or 3 by `selectors`.
    pub(in crate::conformance) fn compatible(
        &mut self,
        selectors: [u16; 2],
        code: impl FnOnce(&mut CodeAssembler) -> Emit,
    ) -> Emit {
        self.enter(selectors, if selectors[0] & 3 == 3 { USER_ALIAS } else { 0 }, 0)?;
        self.bits(32, code)?;
        self.back()
    }

    /// Continues with CS and SS, `alias` behind this code's addresses.
    fn enter(&mut self, [code, stack]: [u16; 2], alias: u32, flags: u32) -> Emit {
        let entry = self.fresh("enter");
        let top = USER_STACK + alias;
        emit!(self;
            push(i32::from(stack));
            push(top as i32);
            pushfq();
            or(dword_ptr(rsp), flags);
            push(i32::from(code));
            lea(rcx) -> &entry;
            add(rcx, alias as i32);
            push(rcx);
            iretq();
            at(&entry);
        );
        Ok(())
    }

    /// Back from any mode and level.
    pub(in crate::conformance) fn back(&mut self) -> Emit {
        self.int(i32::from(BACK))
    }

    /// Code of 16 or 32 bits, which may lie anywhere.
    pub(in crate::conformance) fn bits(
        &mut self,
        bitness: u32,
        code: impl FnOnce(&mut CodeAssembler) -> Emit,
    ) -> Emit {
        let mut assembler = CodeAssembler::new(bitness)?;
        code(&mut assembler)?;
        let bytes = assembler.assemble(0)?;
        self.db(&bytes)
    }

    /// Writes a descriptor; changes RAX.
    pub(in crate::conformance) fn descriptor(&mut self, selector: u16, descriptor: u64) -> Emit {
        emit!(self;
            mov(rax, descriptor);
            mov(qword_ptr(GDT + u32::from(selector & !7)), rax);
        );
        Ok(())
    }

    /// Writes a descriptor or gate of 16 bytes at `address`; changes RAX.
    pub(in crate::conformance) fn wide_descriptor(
        &mut self,
        address: u32,
        [low, high]: [u64; 2],
    ) -> Emit {
        emit!(self;
            mov(rax, low);
            mov(qword_ptr(address), rax);
            mov(rax, high);
            mov(qword_ptr(address + 8), rax);
        );
        Ok(())
    }

    /// Writes an MSR; changes RAX, RCX, RDX.
    pub(in crate::conformance) fn msr(&mut self, number: u32, value: u64) -> Emit {
        emit!(self;
            mov(ecx, number);
            mov(eax, value as u32);
            mov(edx, (value >> 32) as u32);
            wrmsr();
        );
        Ok(())
    }
}
