//! What a program starts in: memory, tables, registers.

use anyhow::{Context, Result};
use brolga_cpu::core::Core;
use brolga_cpu::vcpu::{RIP, SegReg, Segment, TableReg, attr, cr0, cr4, efer, gpr, rflags};
use brolga_mmu::GuestPhys;
use fastrand::Rng;

use super::generate::{Kind, Program};
use super::handlers;
use super::layout::*;
use super::place;

const DATA_RIGHTS: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED;
const CODE_RIGHTS: u32 = DATA_RIGHTS | attr::CODE;
const FLAT: u32 = attr::DB | attr::G;
const USER: u32 = 3 << 5;

/// Bits of page-table entries.
pub(super) mod entry {
    pub(in super::super) const P: u64 = 1;
    pub(in super::super) const W: u64 = 1 << 1;
    pub(in super::super) const U: u64 = 1 << 2;
    pub(in super::super) const A: u64 = 1 << 5;
    pub(in super::super) const D: u64 = 1 << 6;
    pub(in super::super) const NX: u64 = 1 << 63;
}

/// RAM as the program finds it.
pub(super) fn memory(program: &Program) -> Result<Vec<u8>> {
    let mut ram = vec![0; RAM as usize];
    // Who jumps astray meets a handler, which leads back to the program.
    let unused = if program.kind.paged() { STACK_END..TABLES[0] } else { STACK_END..RAM };
    for bytes in [0..GDT, HANDLERS..DATA, unused] {
        ram[bytes.start as usize..bytes.end as usize].fill(ASTRAY);
    }
    Rng::with_seed(program.seed).fill(&mut ram[DATA as usize..STACK_END as usize]);
    let handlers = handlers(program.kind.handler_bits())?;
    put(&mut ram, HANDLERS, handlers);
    put(&mut ram, CODE, &place::image(&program.blocks));
    for n in 0..TARGETS {
        let block = &program.blocks[n as usize % program.blocks.len()];
        let selectors = match block.bits {
            64 => CODE64,
            32 => CODE32,
            _ => CODE16,
        };
        let at = SYSTEM + TABLE + 8 * n;
        number(&mut ram, at, 4, block.at);
        number(&mut ram, at + 4, 2, selectors[0].into());
        number(&mut ram, at + 6, 2, selectors[1].into());
    }
    match program.kind {
        Kind::Real => (0..256).for_each(|vector| {
            number(&mut ram, vector * 4, 2, handler(vector));
        }),
        _ => protected(&mut ram, program),
    }
    Ok(ram)
}

/// The handlers, assembled once.
fn handlers(bits: u32) -> Result<&'static [u8]> {
    use std::sync::OnceLock;
    static CODE: OnceLock<Result<[Vec<u8>; 3], String>> = OnceLock::new();
    let all = CODE.get_or_init(|| {
        let code = |bits| handlers::code(bits).map_err(|error| error.to_string());
        Ok([code(16)?, code(32)?, code(64)?])
    });
    let all = all.as_ref().map_err(|error| anyhow::anyhow!("the handlers: {error}"))?;
    Ok(&all[(bits / 32) as usize])
}

fn put(ram: &mut [u8], at: u64, bytes: &[u8]) {
    ram[at as usize..][..bytes.len()].copy_from_slice(bytes);
}

fn number(ram: &mut [u8], at: u64, width: usize, value: u64) {
    put(ram, at, &value.to_le_bytes()[..width]);
}

/// Where the handler of a vector begins.
fn handler(vector: u64) -> u64 {
    let entry = match vector {
        0..32 => vector,
        _ if vector == u64::from(INTERRUPT) => 32,
        _ => 33,
    };
    HANDLERS + 16 * entry
}

/// A descriptor (Intel SDM volume 3, section 3.4.5), flat with [`attr::G`], else of 64 KiB.
fn descriptor(rights: u32) -> u64 {
    let limit: u64 = if rights & attr::G != 0 { 0xf_ffff } else { 0xffff };
    limit & 0xffff | u64::from(rights) << 40 | (limit >> 16) << 48
}

fn protected(ram: &mut [u8], program: &Program) {
    let long = program.kind == Kind::Long;
    let code64 = CODE_RIGHTS | attr::L | attr::G;
    for (selectors, rights) in [
        (CODE64, code64),
        (DATA32, DATA_RIGHTS | FLAT),
        (CODE32, CODE_RIGHTS | FLAT),
        (CODE16, CODE_RIGHTS | attr::G),
        (DATA16, DATA_RIGHTS),
    ] {
        for (selector, user) in selectors.into_iter().zip([0, USER]) {
            number(ram, GDT + u64::from(selector & !7), 8, descriptor(rights | user));
        }
    }
    let task = 0x67 | TSS << 16 | u64::from(attr::P | 11) << 40;
    number(ram, GDT + u64::from(TASK), 8, task);
    for vector in 0..=u64::from(SERVICE) {
        gate(ram, vector, long);
    }
    if long {
        number(ram, TSS + 4, 8, KERNEL_STACK);
        number(ram, TSS + 0x24, 8, FAULT_STACK);
    } else {
        number(ram, TSS + 4, 4, KERNEL_STACK);
        number(ram, TSS + 8, 2, DATA32[0].into());
    }
    number(ram, TSS + 0x66, 2, 0x68);
    for (set, tables) in TABLES.into_iter().enumerate() {
        match program.kind {
            Kind::Legacy => legacy_tables(ram, tables, &program.pages[set]),
            Kind::Pae | Kind::Long => wide_tables(ram, tables, &program.pages[set], long),
            _ => {}
        }
    }
}

/// An interrupt gate. Exceptions have a stack of their own in IA-32e mode; INT3, INTO and the
/// service are for everyone.
fn gate(ram: &mut [u8], vector: u64, long: bool) {
    const INTERRUPT_GATE: u64 = 0x8e00;
    let offset = handler(vector);
    let public = matches!(vector, 3 | 4) || vector == u64::from(SERVICE);
    let rights = INTERRUPT_GATE | if public { 3 << 13 } else { 0 };
    let stack = u64::from(long && vector < 32);
    let selector = if long { CODE64 } else { CODE32 }[0];
    let at = IDT + vector * if long { 16 } else { 8 };
    let gate = offset | u64::from(selector) << 16 | (rights | stack) << 32;
    number(ram, at, 8, gate);
}

/// One page table behind one directory.
fn legacy_tables(ram: &mut [u8], tables: u64, pages: &[u64]) {
    number(ram, tables, 4, (tables + 0x3000) | 7);
    for (n, page) in pages.iter().enumerate() {
        number(ram, tables + 0x3000 + 4 * n as u64, 4, *page);
    }
}

/// The same behind one table of each level; in PAE paging the second of them comes first.
fn wide_tables(ram: &mut [u8], tables: u64, pages: &[u64], long: bool) {
    // PAE's entries of that level have no access rights.
    let rights = if long { 7 } else { entry::P };
    number(ram, tables, 8, (tables + 0x1000) | 7);
    number(ram, tables + 0x1000, 8, (tables + 0x2000) | rights);
    number(ram, tables + 0x2000, 8, (tables + 0x3000) | 7);
    for (n, page) in pages.iter().enumerate() {
        number(ram, tables + 0x3000 + 8 * n as u64, 8, *page);
    }
}

/// The value of CR3 for one of the sets of tables.
pub(super) fn cr3(kind: Kind, set: usize) -> u64 {
    TABLES[set] + if kind == Kind::Pae { 0x1000 } else { 0 }
}

/// Puts `memory` and the program's first registers into a vCPU after reset.
pub(super) fn begin(core: &mut Core, program: &Program, memory: &[u8]) -> Result<()> {
    core.mem.map.write_slice(GuestPhys(0), memory).context("RAM is large enough")?;
    let v = &mut core.vcpu;
    v.regs[..16].copy_from_slice(&program.regs);
    [v.xmm, v.ymm_high] = program.vectors;
    v.sys.xcr0 = program.xcr0;
    v.mxcsr = program.mxcsr;
    v.set_rflags(program.rflags);
    let entry = &program.blocks[0];
    v.regs[usize::from(RIP)] = entry.at;
    if program.kind == Kind::Real {
        let at = |segment: &Segment, base: u64| {
            Segment::real((base >> 4) as u16, segment.attr, segment.limit)
        };
        v.segs[SegReg::Cs as usize] = at(&v.segs[SegReg::Cs as usize], 0);
        for reg in [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
            v.segs[reg as usize] = at(&v.segs[reg as usize], DATA);
        }
        v.segs[SegReg::Ss as usize] = at(&v.segs[SegReg::Ss as usize], STACK);
        v.regs[usize::from(gpr::RSP)] = STACK_TOP - STACK;
        v.sys.cr0 = program.cr0;
    } else {
        v.regs[usize::from(gpr::RSP)] = STACK_TOP;
        enter_protected(core, program);
    }
    core.vcpu.sys.cr4 |= program.cr4;
    core.mode_changed();
    core.mem.tlb.flush_all();
    Ok(())
}

fn enter_protected(core: &mut Core, program: &Program) {
    let v = &mut core.vcpu;
    let level = usize::from(program.user);
    let rights = if program.user { USER } else { 0 };
    v.cpl = 3 * u8::from(program.user);
    let flat = |selector: u16, rights| Segment { selector, attr: rights, limit: u32::MAX, base: 0 };
    let (selectors, code) = match program.blocks[0].bits {
        64 => (CODE64, attr::L | attr::G),
        32 => (CODE32, FLAT),
        _ => (CODE16, attr::G),
    };
    v.segs[SegReg::Cs as usize] = flat(selectors[level], CODE_RIGHTS | code | rights);
    for reg in [SegReg::Ss, SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
        v.segs[reg as usize] = flat(DATA32[level], DATA_RIGHTS | FLAT | rights);
    }
    let size = if program.kind == Kind::Long { 16 } else { 8 };
    v.gdtr = TableReg { base: GDT, limit: TASK + 15 };
    v.idtr = TableReg { base: IDT, limit: (u16::from(SERVICE) + 1) * size - 1 };
    v.tr = Segment { selector: TASK, attr: attr::P | 11, limit: 0x67, base: TSS };
    v.sys.cr0 = program.cr0 | cr0::PE;
    if program.kind != Kind::Flat {
        v.sys.cr0 |= cr0::PG;
        v.sys.cr3 = cr3(program.kind, 0);
    }
    match program.kind {
        Kind::Pae => {
            v.sys.cr4 = cr4::PAE;
            v.sys.efer = efer::NXE;
            v.sys.pdptes[0] = (TABLES[0] + 0x2000) | 1;
        }
        Kind::Long => {
            v.sys.cr4 = cr4::PAE;
            v.sys.efer = efer::LME | efer::LMA | efer::NXE | efer::SCE;
            v.sys.star = u64::from(CODE64[0]) << 32 | u64::from(CODE32[1]) << 48;
            v.sys.lstar = program.syscall;
            v.sys.sfmask = rflags::TF | rflags::DF;
            v.segs[SegReg::Fs as usize].base = DATA;
            v.segs[SegReg::Gs as usize].base = DATA + 0x1000;
            v.sys.kernel_gs_base = ALIAS;
        }
        _ => {}
    }
}
