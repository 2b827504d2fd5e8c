//! From the reset vector to long mode, and what lies in memory there.
//!
//! ```text
//! 01000  page tables: PML4, PDPT, four page directories, one page table
//! 08000  GDT, TSS
//! 09000  IDT
//! 0A000  variables
//! 0C000  stack, downwards
//! 0D000  stack of level 3, downwards
//! 10000  the ROM's copy, from which all 64-bit code runs
//! 30000  pages that rows copy or map
//! ```
//!
//! Memory is mapped one to one by pages of 2 MiB that level 3 may use, so that rows at level 3 are
//! the same code. At [`WINDOW`] are two pages of 4 KiB: one that is not present, one that is mapped
//! anew again and again.

use iced_x86::code_asm::*;

use crate::rom::tables::{
    self, CODE, DATA, LONG, PAGES, SIZE32, TSS64, interrupt_gate, segment, table_register,
};
use crate::rom::{Emit, Placed, ROM_BASE, ROM_SIZE, Section, emit};

pub(super) const PML4: u32 = 0x1000;
const PDPT: u32 = 0x2000;
const DIRECTORIES: u32 = 0x3000;
pub(super) const PAGE_TABLE: u32 = 0x7000;
const GDT: u32 = 0x8000;
const TSS: u32 = 0x8100;
const IDT: u32 = 0x9000;
/// Where a row's abandoning leads (qword).
pub(super) const ABANDON: u32 = 0xA000;
/// The number of repetitions that was asked for (dword).
pub(super) const COUNT: u32 = 0xA008;
/// The row, plus one, that was last run without a host (dword).
pub(super) const ALONE_DONE: u32 = 0xA00C;
/// Rows that have failed (dword).
pub(super) const FAILURES: u32 = 0xA010;
/// What rows change or look at (64 bytes).
pub(super) const SCRATCH: u32 = 0xA040;
const STACK: u32 = 0xC000;
pub(super) const USER_STACK: u32 = 0xD000;
pub(super) const SHADOW: u32 = 0x1_0000;
/// Two pages to copy between, two to map in turn.
pub(super) const SOURCE: u32 = 0x3_0000;
pub(super) const TARGET: u32 = 0x3_1000;
pub(super) const FRAMES: [u32; 2] = [0x3_2000, 0x3_3000];
/// A page that is not present, and behind it the page that is mapped in turn.
pub(super) const WINDOW: u32 = 0x4000_0000;
const WINDOW_DIRECTORY: u32 = DIRECTORIES + 0x1000;

pub(super) const LAPIC: u32 = 0xFEE0_0000;
pub(super) const HPET: u32 = 0xFED0_0000;

/// In the order that SYSCALL, SYSRET and SYSEXIT want.
const CODE0: u16 = 0x08;
const DATA0: u16 = 0x10;
const CODE3_32: u16 = 0x18 | 3;
pub(super) const DATA3: u16 = 0x20 | 3;
pub(super) const CODE3: u16 = 0x28 | 3;
const TSS_SELECTOR: u16 = 0x38;
/// 32-bit code of level 0, for the way to long mode.
const CODE32: u16 = 0x48;

const LEVEL_3: u8 = 0x60;

/// The vector of interrupts, and that by which level 3 comes back.
pub(super) const INTERRUPT: u8 = 0x40;
pub(super) const BACK: u8 = 0x81;
const EXCEPTIONS: u8 = 32;
pub(super) const IDT_SIZE: usize = 256 * 16;

pub(super) const PRESENT: u32 = 0x07;
const LARGE: u32 = 0x80;
const UNCACHED: u32 = 0x18;
const FIRST_UNCACHED: u32 = 0xC000_0000;

const EFER: u32 = 0xC000_0080;
const EFER_SCE_LME: u32 = 1 << 8 | 1;
/// OSXMMEXCPT, OSFXSR, PAE.
pub(super) const CR4: u32 = 1 << 10 | 1 << 9 | 1 << 5;
/// PG, WP, NE, MP, PE.
const CR0: u32 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 1 | 1;

fn gdt() -> Vec<u8> {
    tables::bytes(&[
        0,
        segment(0, 0xF_FFFF, CODE, PAGES | LONG),
        segment(0, 0xF_FFFF, DATA, PAGES | SIZE32),
        segment(0, 0xF_FFFF, CODE | LEVEL_3, PAGES | SIZE32),
        segment(0, 0xF_FFFF, DATA | LEVEL_3, PAGES | SIZE32),
        segment(0, 0xF_FFFF, CODE | LEVEL_3, PAGES | LONG),
        // SYSEXIT makes this the stack segment of level 3.
        segment(0, 0xF_FFFF, DATA | LEVEL_3, PAGES | SIZE32),
        segment(TSS, 0x67, TSS64, 0),
        0,
        segment(0, 0xF_FFFF, CODE, PAGES | SIZE32),
    ])
}

/// The IDT: all exceptions, interrupts, and the way back from level 3.
pub(super) fn idt(long: &Placed) -> Vec<u8> {
    let mut gates = vec![0; IDT_SIZE / 8];
    let mut set = |vector: u8, label: &str, level: u8| {
        let [low, high] = interrupt_gate(CODE0, long.address_of(label).into(), 0);
        let at = 2 * usize::from(vector);
        gates[at] = low | u64::from(level) << 40;
        gates[at + 1] = high;
    };
    for vector in 0..EXCEPTIONS {
        set(vector, &stub(vector), 0);
    }
    set(DIVIDE_ERROR, "divide_error", 0);
    set(PAGE_FAULT, "page_fault", 0);
    set(INTERRUPT, "interrupt", 0);
    set(SOFTWARE, "software", 0);
    set(BACK, "back", LEVEL_3);
    tables::bytes(&gates)
}

const DIVIDE_ERROR: u8 = 0;
const PAGE_FAULT: u8 = 14;
/// The vector of the row that measures INT.
pub(super) const SOFTWARE: u8 = 0x80;

fn stub(vector: u8) -> String {
    format!("vector_{vector}")
}

/// `entry`, in real mode.
pub(super) fn real(a: &mut Section<'_>, protected: u32) -> Emit {
    let gdt = gdt();
    let at = a.constant(&gdt);
    let gdtr = a.constant(&table_register(u64::from(ROM_BASE + at), gdt.len()));
    emit!(a;
        at("entry");
        cli();
        cld();
        // The A20 gate.
        outb(0x92, 2);
        lgdt(ptr(gdtr).cs());
        mov(eax, cr0);
        or(eax, 1);
        mov(cr0, eax);
        jmp_far32(CODE32, protected);
    );
    Ok(())
}

/// `protected`, in place: the copy of the ROM, page tables, long mode.
pub(super) fn protected(a: &mut Section<'_>, long: u32) -> Emit {
    emit!(a;
        at("protected");
        mov(eax, u32::from(DATA0));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        mov(esp, STACK);
        xor(eax, eax);
        mov(edi, PML4);
        mov(ecx, (STACK - PML4) / 4);
        rep_stosd();
        mov(esi, ROM_BASE);
        mov(edi, SHADOW);
        mov(ecx, ROM_SIZE as u32 / 4);
        rep_movsd();
        mov(dword_ptr(PML4), PDPT | PRESENT);
    );
    for gib in 0..4 {
        emit!(a; mov(dword_ptr(PDPT + gib * 8), (DIRECTORIES + gib * 0x1000) | PRESENT););
    }
    emit!(a;
        mov(edi, DIRECTORIES);
        mov(eax, PRESENT | LARGE);
        at(".map");
        cmp(eax, FIRST_UNCACHED);
        jb -> ".cached";
        or(eax, UNCACHED);
        at(".cached");
        mov(dword_ptr(edi), eax);
        add(edi, 8);
        add(eax, 0x20_0000);
        jnc -> ".map";
        mov(dword_ptr(WINDOW_DIRECTORY), PAGE_TABLE | PRESENT);
        mov(dword_ptr(PAGE_TABLE + 8), FRAMES[0] | PRESENT);
        mov(eax, CR4);
        mov(cr4, eax);
        mov(eax, PML4);
        mov(cr3, eax);
        mov(ecx, EFER);
        rdmsr();
        or(eax, EFER_SCE_LME);
        wrmsr();
        mov(eax, CR0);
        mov(cr0, eax);
        jmp_far32(CODE0, long);
    );
    Ok(())
}

/// `long`: tables, registers and chips as the rows want them.
pub(super) fn long(a: &mut Section<'_>, idt: u32) -> Emit {
    let gdt = gdt();
    let table = a.constant(&gdt);
    let gdtr = a.constant(&table_register(GDT.into(), gdt.len()));
    let idtr = a.constant(&table_register(IDT.into(), IDT_SIZE));
    emit!(a;
        at("long");
        mov(eax, u32::from(DATA0));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        mov(esp, STACK);
        mov(esi, table);
        mov(edi, GDT);
        mov(ecx, gdt.len() as u32 / 4);
        rep_movsd();
        mov(esi, SHADOW + idt);
        mov(edi, IDT);
        mov(ecx, IDT_SIZE as u32 / 4);
        rep_movsd();
        mov(qword_ptr(TSS + 4), STACK as i32);
        mov(word_ptr(TSS + 0x66), 0x68);
        lgdt(ptr(gdtr));
        lidt(ptr(idtr));
        mov(eax, u32::from(TSS_SELECTOR));
        ltr(ax);
        // No interrupts from the 8259s.
        outb(0x21, 0xFF);
        outb(0xA1, 0xFF);
        // The local APIC on; its timer counts every clock and interrupts once.
        mov(r10d, LAPIC);
        mov(dword_ptr(r10 + 0xF0), 0x1FF);
        mov(dword_ptr(r10 + 0x3E0), 0xB);
        mov(dword_ptr(r10 + 0x320), u32::from(INTERRUPT));
        // The HPET counts.
        mov(eax, HPET);
        or(dword_ptr(rax + 0x10), 1);
        fninit();
    );
    let selectors = u32::from(CODE3_32) << 16 | u32::from(CODE0);
    write_msr(a, STAR, [0, selectors])?;
    write_msr(a, FMASK, [0x200, 0])?;
    entry(a, LSTAR, "syscall")?;
    write_msr(a, SYSENTER_CS, [u32::from(CODE0), 0])?;
    write_msr(a, SYSENTER_ESP, [STACK, 0])?;
    entry(a, SYSENTER_EIP, "sysenter")
}

const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const FMASK: u32 = 0xC000_0084;
const SYSENTER_CS: u32 = 0x174;
const SYSENTER_ESP: u32 = 0x175;
const SYSENTER_EIP: u32 = 0x176;

fn write_msr(a: &mut Section<'_>, msr: u32, [low, high]: [u32; 2]) -> Emit {
    emit!(a; mov(ecx, msr); mov(eax, low); mov(edx, high); wrmsr(););
    Ok(())
}

fn entry(a: &mut Section<'_>, msr: u32, label: &str) -> Emit {
    emit!(a; mov(ecx, msr); lea(rax) -> label; xor(edx, edx); wrmsr(););
    Ok(())
}

/// What exceptions, interrupts and system calls lead to: all count in R13.
pub(super) fn handlers(a: &mut Section<'_>) -> Emit {
    for vector in 0..EXCEPTIONS {
        emit!(a; at(&stub(vector)); mov(eax, u32::from(vector)); jmp -> "abandon";);
    }
    emit!(a;
        // R15: the row raises this. DIV ECX is 2 bytes, MOV RAX, [RBX] is 3.
        at("divide_error");
        test(r15, r15);
        jz -> &stub(DIVIDE_ERROR);
        inc(r13);
        add(qword_ptr(rsp), 2);
        iretq();

        at("page_fault");
        test(r15, r15);
        jz -> &stub(PAGE_FAULT);
        inc(r13);
        add(rsp, 8);
        add(qword_ptr(rsp), 3);
        iretq();

        // R10: the local APIC.
        at("interrupt");
        inc(r13);
        mov(dword_ptr(r10 + 0xB0), 0);
        iretq();

        at("software");
        inc(r13);
        iretq();

        at("syscall");
        inc(r13);
        sysretq();

        // R8 and R9: where level 3 goes on.
        at("sysenter");
        inc(r13);
        mov(rdx, r8);
        mov(rcx, r9);
        sysexitq();

        at("back");
        mov(eax, u32::from(DATA0));
        mov(ss, eax);
        mov(esp, STACK);
        jmp(r14);

        // EAX: a vector that the row does not expect. Everything is as between rows again.
        at("abandon");
    );
    super::tell(a, super::FAULT)?;
    emit!(a;
        mov(eax, PML4);
        mov(cr3, rax);
        mov(eax, CR4);
        mov(cr4, rax);
        xor(eax, eax);
        mov(cr8, rax);
        mov(eax, u32::from(DATA0));
        mov(ss, eax);
        mov(esp, STACK);
        jmp(qword_ptr(ABANDON));
    );
    emit_puts(a)
}

/// RSI: a text for COM1.
fn emit_puts(a: &mut Section<'_>) -> Emit {
    const COM1: u16 = 0x3F8;
    const LINE_STATUS: u16 = COM1 + 5;
    const ROOM: i32 = 0x20;
    emit!(a;
        at("puts");
        inb(LINE_STATUS);
        test(al, ROOM);
        jz -> "puts";
        mov(al, byte_ptr(rsi));
        test(al, al);
        jz -> ".end";
        inc(rsi);
        mov(edx, u32::from(COM1));
        out(dx, al);
        jmp -> "puts";
        at(".end");
        ret();
    );
    Ok(())
}
