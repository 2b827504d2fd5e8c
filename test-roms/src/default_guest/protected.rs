//! 32-bit protected mode: page tables, then long mode.

use iced_x86::code_asm::*;

use super::console::{report, say};
use super::memory::*;
use crate::rom::{Emit, ROM_BASE, ROM_SIZE, Section, emit};

const EXTENDED_FEATURES: u32 = 0x8000_0001;
const LONG_MODE_BIT: u32 = 29;
const NX_BIT: u32 = 20;

const PRESENT: u32 = 0x01;
const WRITABLE: u32 = 0x02;
const UNCACHED: u32 = 0x18;
const LARGE: u32 = 0x80;
/// Bit 63 of an entry, in its upper half.
const NO_EXECUTE: u32 = 0x8000_0000;

const PAGE: u32 = 0x1000;
const LARGE_PAGE: u32 = 0x20_0000;
/// The last GiB below 4 GiB holds the PCI devices, APICs and ROM.
const FIRST_UNCACHED: u32 = 0xC000_0000;

const EFER: u32 = 0xC000_0080;
const EFER_LME: u32 = 1 << 8;
const EFER_NXE: u32 = 1 << 11;
/// OSXMMEXCPT, OSFXSR, PAE.
const CR4: u32 = 1 << 10 | 1 << 9 | 1 << 5;
/// PG, WP, NE, MP, PE.
const CR0: u32 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 1 | 1;

pub(super) fn emit(a: &mut Section<'_>, long: u32) -> Emit {
    emit!(a;
        at("protected");
        mov(eax, u32::from(FLAT));
        mov(ds, eax);
        mov(es, eax);
        mov(ss, eax);
        mov(fs, eax);
        mov(gs, eax);
        mov(esp, STACK_TOP);
    );
    report(a, "", "32-bit flat segments, CR0 ")?;
    emit!(a; mov(eax, cr0); call -> "put_hex32";);
    say(a, "\n")?;
    emit_probe(a)?;
    emit_page_tables(a)?;
    emit_enable(a)?;
    report(a, "paging", "4 levels, 4 GiB mapped one to one, page 0 left out")?;
    let nx = a.text(", NX\n");
    let no_nx = a.text("\n");
    emit!(a;
        mov(esi, nx);
        test(dword_ptr(PAGE_DIRECTORIES + 12), NO_EXECUTE);
        jnz -> ".nx";
        mov(esi, no_nx);
        at(".nx");
        call -> "puts";
        jmp_far32(CODE64, long);
    );
    Ok(())
}

/// EBP: the upper half of page-table entries that are not for execution.
fn emit_probe(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, 0x8000_0000u32);
        cpuid();
        cmp(eax, EXTENDED_FEATURES);
        jb -> ".no_long_mode";
        mov(eax, EXTENDED_FEATURES);
        cpuid();
        xor(ebp, ebp);
        bt(edx, NX_BIT);
        jnc -> ".no_nx";
        mov(ebp, NO_EXECUTE);
        at(".no_nx");
        bt(edx, LONG_MODE_BIT);
        jc -> ".long_mode";
        at(".no_long_mode");
    );
    report(a, "long mode", "this processor has none: halted\n")?;
    emit!(a;
        at(".stuck");
        hlt();
        jmp -> ".stuck";
        at(".long_mode");
    );
    Ok(())
}

/// Entries that map from EAX (address and flags) on, in steps, while they stay below an end.
fn emit_map(a: &mut Section<'_>, name: &str, table: u32, step: u32, end: Option<u32>) -> Emit {
    emit!(a;
        mov(edi, table);
        at(name);
        mov(dword_ptr(edi), eax);
        mov(dword_ptr(edi + 4), ebp);
        add(edi, 8);
        add(eax, step);
    );
    match end {
        Some(end) => emit!(a; cmp(eax, end); jb -> name;),
        None => emit!(a; jnc -> name;),
    }
    Ok(())
}

/// 2 MiB pages for 4 GiB, and 4 KiB pages for the first 2 MiB of them, where the code is read-only
/// and alone executable.
fn emit_page_tables(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(edi, PML4);
        xor(eax, eax);
        mov(ecx, PAGE_TABLES_SIZE / 4);
        rep_stosd();
        mov(dword_ptr(PML4), PDPT | PRESENT | WRITABLE);
    );
    for gib in 0..4 {
        let directory = PAGE_DIRECTORIES + gib * PAGE;
        emit!(a; mov(dword_ptr(PDPT + gib * 8), directory | PRESENT | WRITABLE););
    }
    let large_pages = PRESENT | WRITABLE | LARGE;
    emit!(a; mov(eax, large_pages););
    emit_map(a, ".large", PAGE_DIRECTORIES, LARGE_PAGE, None)?;
    let uncached = PAGE_DIRECTORIES + FIRST_UNCACHED / LARGE_PAGE * 8;
    emit!(a; mov(eax, FIRST_UNCACHED | large_pages | UNCACHED););
    emit_map(a, ".uncached", uncached, LARGE_PAGE, None)?;

    emit!(a;
        mov(dword_ptr(PAGE_DIRECTORIES), PAGE_TABLE | PRESENT | WRITABLE);
        mov(dword_ptr(PAGE_DIRECTORIES + 4), 0);
        mov(eax, PRESENT | WRITABLE);
    );
    emit_map(a, ".small", PAGE_TABLE, PAGE, Some(LARGE_PAGE))?;
    let rom = PAGE_TABLE + ROM_BASE / PAGE * 8;
    emit!(a; mov(eax, ROM_BASE | PRESENT););
    emit_map(a, ".rom", rom, PAGE, Some(ROM_BASE + ROM_SIZE as u32))?;
    let code = PAGE_TABLE + SHADOW / PAGE * 8;
    emit!(a; push(ebp); xor(ebp, ebp); mov(eax, SHADOW | PRESENT););
    emit_map(a, ".code", code, PAGE, Some(SHADOW + ROM_SIZE as u32))?;
    emit!(a; pop(ebp); mov(dword_ptr(PAGE_TABLE), 0););
    Ok(())
}

/// In the order of SDM vol. 3A §11.8.5: PAE, CR3, LME, then PG. The segments stay 32-bit ones.
fn emit_enable(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, CR4);
        mov(cr4, eax);
        mov(eax, PML4);
        mov(cr3, eax);
        mov(ecx, EFER);
        rdmsr();
        or(eax, EFER_LME);
        test(ebp, ebp);
        jz -> ".enable";
        or(eax, EFER_NXE);
        at(".enable");
        wrmsr();
        mov(eax, CR0);
        mov(cr0, eax);
    );
    Ok(())
}
