//! Paging permissions with four and five levels: U/S, R/W and XD of the last entry and of any
//! entry above it, CR0.WP, SMEP, SMAP with RFLAGS.AC, kind of access and level of privilege; pages
//! of 4 KiB, 2 MiB and 1 GiB; reserved bits at every level; accessed and dirty flags; CR2.

use iced_x86::code_asm::*;

use super::PF;
use super::kit::{
    self, About, CASE, CR4_LA57, CR4_PAE, Kit, LARGE, OUTCOME, PRESENT, RAISED_CR2, SCRATCH,
    USER_PAGE, WRITABLE,
};
use crate::conformance::features::{Feature, GIB_PAGES, LA57, NX, SMAP, SMEP};
use crate::conformance::script::{Case, with_set};
use crate::conformance::{ACCESSED, DIRTY, Kind, NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

/// The tables of the page under test, the highest first, and the page.
const TABLES: u32 = SCRATCH + 0x2_0000;
const PAGE: u32 = SCRATCH + 0x3_0000;
/// A place in each table, the same for all.
const SLOT: u32 = 8 * 5;
/// The address of the page under test: slot 5 of each table.
const fn linear(levels: u32) -> u64 {
    let mut address = 0x123;
    let mut level = 0;
    while level < levels {
        address |= 5 << (12 + 9 * level);
        level += 1;
    }
    address
}

/// Outcomes say besides: an entry above the last is not accessed, or dirty; CR2 is wrong.
const UNEVEN: u32 = 1 << 26;
const WRONG_CR2: u32 = 1 << 27;
const SOURCE: &str = "SDM vol. 3A 4.6.1, 4.7, 4.8";

/// What a case does, from the bits of its number.
#[derive(Clone, Copy)]
struct Setting(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Fetch,
}

impl Setting {
    fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 != 0
    }
    /// R/W, U/S and XD of the last entry, and of the one above it that is named by
    /// [`Setting::above`]; all others allow everything.
    fn last(self) -> [bool; 3] {
        [self.bit(0), self.bit(1), self.bit(2)]
    }
    fn upper(self) -> [bool; 3] {
        [self.bit(3), self.bit(4), self.bit(5)]
    }
    fn write_protect(self) -> bool {
        self.bit(6)
    }
    fn smep(self) -> bool {
        self.bit(7)
    }
    fn smap(self) -> bool {
        self.bit(8)
    }
    fn ac(self) -> bool {
        self.bit(9)
    }
    fn user(self) -> bool {
        self.bit(10)
    }
    fn access(self) -> Access {
        [Access::Read, Access::Write, Access::Fetch][(self.0 >> 11) as usize % 3]
    }
    /// The cases of one upper level.
    const CASES: u32 = 3 << 11;

    fn name(self, place: &str) -> String {
        let entry = |[writable, user, no_execute]: [bool; 3]| {
            let user = if user { "U" } else { "S" };
            let writable = if writable { "W" } else { "R" };
            format!("{user}{writable}{}", if no_execute { "-XD" } else { "" })
        };
        let access = format!("{:?} at level {}", self.access(), 3 * u32::from(self.user()));
        with_set(
            format!("{access}, {place} {}, last {}", entry(self.upper()), entry(self.last())),
            &[
                (self.write_protect(), ", WP"),
                (self.smep(), ", SMEP"),
                (self.smap(), ", SMAP"),
                (self.ac(), ", AC"),
            ],
        )
    }

    /// 4.6.1, paragraph by paragraph.
    fn allowed(self) -> bool {
        let [writable, user_page] = [0, 1].map(|n| self.last()[n] && self.upper()[n]);
        let no_execute = self.last()[2] || self.upper()[2];
        let open = !user_page || !self.smap() || self.ac();
        match (self.access(), self.user()) {
            (Access::Read, false) => open,
            (Access::Write, false) => open && (writable || !self.write_protect()),
            (Access::Fetch, false) => !(user_page && self.smep() || no_execute),
            (Access::Read, true) => user_page,
            (Access::Write, true) => user_page && writable,
            (Access::Fetch, true) => user_page && !no_execute,
        }
    }

    /// 4.7 and 4.8. What a fault does to accessed flags is the processor's choice; it sets no dirty
    /// flag.
    fn case(self, place: &str) -> Case {
        let access = self.access();
        let dirty = if access == Access::Write { DIRTY } else { 0 };
        if self.allowed() {
            return (self.name(place), (NOTHING | ACCESSED | dirty).into(), u64::MAX);
        }
        let error = 1
            | u32::from(access == Access::Write) << 1
            | u32::from(self.user()) << 2
            | u32::from(access == Access::Fetch) << 4;
        (self.name(place), exception(PF, error).into(), !u64::from(ACCESSED | UNEVEN))
    }
}

/// What the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Levels of tables that an address goes through, of as many as there are.
    levels: u32,
    of: u32,
}

impl Shape {
    fn size(self) -> &'static str {
        match self.of - self.levels {
            0 => "4 KiB",
            1 => "2 MiB",
            _ => "1 GiB",
        }
    }
    /// The entry at `level`, 0 being the highest.
    fn entry(level: u32) -> u32 {
        TABLES + 0x1000 * level + SLOT
    }
    fn last(self) -> u32 {
        Self::entry(self.levels - 1)
    }
    fn entry_name(self, level: u32) -> &'static str {
        ["PTE", "PDE", "PDPTE", "PML4E", "PML5E"][(self.of - 1 - level) as usize]
    }
    /// Where the page begins, and its entry without permissions.
    fn leaf(self) -> u32 {
        if self.levels == self.of { PAGE } else { LARGE }
    }
    /// Where in the page the access goes: to what is RAM and free.
    fn address(self) -> u64 {
        let covered = 12 + 9 * (self.of - self.levels);
        let page = linear(self.of) >> covered << covered;
        page | if self.levels == self.of { 0x123 } else { u64::from(PAGE) + 0x123 }
    }
}

pub(in crate::conformance) fn four_levels() -> Emit<Rom> {
    rom("paging-4", "paging with four levels: permissions, page sizes, reserved bits", 4)
}

pub(in crate::conformance) fn five_levels() -> Emit<Rom> {
    rom("paging-5", "paging with five levels: permissions, page sizes, reserved bits", 5)
}

fn rom(name: &'static str, about: &'static str, levels: u32) -> Emit<Rom> {
    const NEEDS: &[Feature] = &[NX, SMEP, SMAP, LA57];
    let five_levels = levels == 5;
    let needs = if five_levels { NEEDS } else { &NEEDS[..3] };
    kit::rom(About { name, about, needs, five_levels }, |a| {
        emit!(a; mov(byte_ptr(PAGE + 0x123), 0xc3););
        for shape in (levels - 2..=levels).rev().map(|n| Shape { levels: n, of: levels }) {
            let gib = [GIB_PAGES];
            a.need(if shape.size() == "1 GiB" { &gib } else { &[] });
            permissions(a, shape)?;
            reserved(a, shape)?;
        }
        a.need(&[]);
        addresses(a, levels)
    })
}

/// Writes entries that allow everything, and the highest into the table that CR3 names.
fn emit_tables(a: &mut Kit<'_, '_>, shape: Shape) -> Emit {
    const ALL: u32 = PRESENT | WRITABLE | USER_PAGE;
    let top = if shape.of == 5 { kit::PML5 } else { kit::PML4 };
    // The kit's highest table is the page's too.
    emit!(a; mov(qword_ptr(top + SLOT), (TABLES + 0x1000) as i32 | ALL as i32););
    for level in 1..shape.levels - 1 {
        let next = TABLES + 0x1000 * (level + 1);
        emit!(a; mov(qword_ptr(Shape::entry(level)), next as i32 | ALL as i32););
    }
    emit!(a; mov(qword_ptr(shape.last()), shape.leaf() as i32 | ALL as i32););
    Ok(())
}

/// The entry at `level`: the highest lies in the kit's table.
fn entry(shape: Shape, level: u32) -> u32 {
    match (level, shape.of) {
        (0, 5) => kit::PML5 + SLOT,
        (0, _) => kit::PML4 + SLOT,
        _ => Shape::entry(level),
    }
}

fn permissions(a: &mut Kit<'_, '_>, shape: Shape) -> Emit {
    for level in 0..shape.levels - 1 {
        let place = format!("{}, {}", shape.size(), shape.entry_name(level));
        let cases = (0..Setting::CASES).map(|n| Setting(n).case(&place));
        a.matrix(
            SOURCE,
            Kind::Outcome,
            cases,
            |a| {
                emit_tables(a, shape)?;
                emit_entries(a, entry(shape, level), shape.last())?;
                emit_registers(a, shape)?;
                emit_accesses(a, shape.address())
            },
            |a| emit_flags(a, shape),
        )?;
    }
    Ok(())
}

/// Permissions of both entries from the case's number: R/W is bit 1, U/S bit 2, XD bit 63.
fn emit_entries(a: &mut Kit<'_, '_>, upper: u32, last: u32) -> Emit {
    emit!(a; mov(ebx, dword_ptr(CASE)););
    for (at, shift) in [(last, 0), (upper, 3)] {
        emit!(a;
            mov(eax, ebx);
            shr(eax, shift);
            mov(rdx, rax);
            shl(rdx, 61);
            mov(ecx, 1u32);
            shl(rcx, 63);
            and(rdx, rcx);
            and(eax, 3);
            lea(rdx, ptr(rdx + rax * 2));
            and(qword_ptr(at), !(WRITABLE | USER_PAGE) as i32);
            or(qword_ptr(at), rdx);
        );
    }
    Ok(())
}

/// WP is bit 16 of CR0, SMEP and SMAP are bits 20 and 21 of CR4, AC is bit 18 of RFLAGS. EBX is the
/// case.
fn emit_registers(a: &mut Kit<'_, '_>, shape: Shape) -> Emit {
    let cr4_value = CR4_PAE | if shape.of == 5 { CR4_LA57 } else { 0 };
    emit!(a;
        mov(rax, cr0);
        btr(eax, 16);
        mov(ecx, ebx);
        shr(ecx, 6);
        and(ecx, 1);
        shl(ecx, 16);
        or(eax, ecx);
        mov(cr0, rax);
        mov(ecx, ebx);
        shr(ecx, 7);
        and(ecx, 3);
        shl(ecx, 20);
        or(ecx, cr4_value);
        mov(cr4, rcx);
        pushfq();
        btr(dword_ptr(rsp), 18);
        mov(ecx, ebx);
        shr(ecx, 9);
        and(ecx, 1);
        shl(ecx, 18);
        or(dword_ptr(rsp), ecx);
        popfq();
        mov(rax, cr3);
        mov(cr3, rax);
    );
    Ok(())
}

/// The access at the page, at the case's level; EBX is the case.
fn emit_accesses(a: &mut Kit<'_, '_>, address: u64) -> Emit {
    let (user, done) = (a.fresh("user_case"), a.fresh("done"));
    emit!(a;
        mov(rdi, address);
        mov(esi, ebx);
        shr(esi, 11);
        bt(ebx, 10);
        jc -> &user;
    );
    emit_access(a)?;
    emit!(a; jmp -> &done; at(&user););
    a.enter_user(0)?;
    emit_access(a)?;
    a.back()?;
    a.at(&done)
}

pub(super) fn emit_access(a: &mut Kit<'_, '_>) -> Emit {
    let [write, fetch, end] = ["write", "fetch", "end"].map(|what| a.fresh(what));
    emit!(a;
        cmp(esi, 1);
        je -> &write;
        cmp(esi, 2);
        je -> &fetch;
        mov(al, byte_ptr(rdi));
        jmp -> &end;
        at(&write);
        mov(byte_ptr(rdi), 0xc3);
        jmp -> &end;
        at(&fetch);
        call(rdi);
        at(&end);
    );
    Ok(())
}

/// A and D of the last entry, bits 5 and 6, become those of the outcome; entries above must have A
/// where the last has it, and never D. CR2 must be the address if there was a fault.
fn emit_flags(a: &mut Kit<'_, '_>, shape: Shape) -> Emit {
    let [even, no_fault] = ["even", "no_fault"].map(|what| a.fresh(what));
    emit!(a;
        mov(eax, dword_ptr(shape.last()));
        and(eax, 0x60);
        mov(ecx, eax);
        shl(ecx, 19);
        or(dword_ptr(OUTCOME), ecx);
        and(eax, 0x20);
        xor(ecx, ecx);
    );
    for level in 0..shape.levels - 1 {
        emit!(a;
            mov(edx, dword_ptr(entry(shape, level)));
            and(edx, 0x60);
            xor(edx, eax);
            or(ecx, edx);
        );
    }
    emit!(a;
        test(ecx, ecx);
        jz -> &even;
        or(dword_ptr(OUTCOME), UNEVEN);
        at(&even);
        cmp(dword_ptr(OUTCOME), 0);
        jge -> &no_fault;
        mov(rax, shape.address());
        cmp(rax, qword_ptr(RAISED_CR2));
        je -> &no_fault;
        or(dword_ptr(OUTCOME), WRONG_CR2);
        at(&no_fault);
    );
    Ok(())
}

/// 4.5.4, tables 4-14 to 4-20: bits that are reserved at each level, and entries that are not
/// present, whose other bits mean nothing.
fn reserved(a: &mut Kit<'_, '_>, shape: Shape) -> Emit {
    const SOURCE: &str = "SDM vol. 3A 4.5.4, 4.7";
    /// The highest bit of a physical address that no processor has.
    const BEYOND: u32 = 51;
    const XD: u32 = 63;
    let read = |a: &mut Kit<'_, '_>, name: String, expected: u32, at: u32, bits: &[u32]| {
        a.probe(name, SOURCE, expected, |a| {
            emit_tables(a, shape)?;
            for &bit in bits {
                emit!(a; btc(qword_ptr(at), bit););
            }
            emit!(a; mov(rax, cr3); mov(cr3, rax); mov(rdi, shape.address()); mov(al, byte_ptr(rdi)););
            Ok(())
        })
    };
    const RESERVED: u32 = exception(PF, 9);
    // P may be bit 0 only, and PS only where there are large pages.
    const PS: u32 = 7;
    emit!(a; mov(eax, CR4_PAE | if shape.of == 5 { CR4_LA57 } else { 0 }); mov(cr4, rax););
    for level in 0..shape.levels {
        let (at, last) = (entry(shape, level), level == shape.levels - 1);
        let what = format!("{}, {}", shape.size(), shape.entry_name(level));
        read(a, format!("{what} not present"), exception(PF, 0), at, &[0])?;
        let name = format!("{what} not present, with reserved bits");
        read(a, name, exception(PF, 0), at, &[0, BEYOND, XD])?;
        read(a, format!("{what} with bit {BEYOND}"), RESERVED, at, &[BEYOND])?;
        read(a, format!("{what} with ignored bits"), NOTHING, at, &[9, 10, 11, 52, 58])?;
        read(a, format!("{what} with XD"), NOTHING, at, &[XD])?;
        // PML5E and PML4E have no PS.
        if shape.of - 1 - level >= 3 {
            read(a, format!("{what} with PS"), RESERVED, at, &[PS])?;
        }
        if last && shape.levels < shape.of {
            for bit in [13, if shape.of - shape.levels == 1 { 20 } else { 29 }] {
                read(a, format!("{what} with bit {bit}"), RESERVED, at, &[bit])?;
            }
            read(a, format!("{what} with PAT"), NOTHING, at, &[12])?;
        }
        emit!(a; mov(ecx, kit::EFER); rdmsr(); btr(eax, 11); wrmsr(););
        read(a, format!("{what} with XD but without EFER.NXE"), RESERVED, at, &[XD])?;
        emit!(a; mov(ecx, kit::EFER); rdmsr(); bts(eax, 11); wrmsr(););
    }
    emit_tables(a, shape)
}

/// Canonical addresses have as many bits as there are levels for.
fn addresses(a: &mut Kit<'_, '_>, levels: u32) -> Emit {
    const SOURCE: &str = "SDM vol. 1 3.3.7.1";
    let bits = 12 + 9 * levels;
    let (gp, absent) = (exception(super::GP, 0), exception(PF, 0));
    for (name, address, expected) in [
        ("the last of the lower half", (1 << (bits - 1)) - 1, absent),
        ("the first beyond the lower half", 1 << (bits - 1), gp),
        ("the last below the upper half", u64::MAX << (bits - 1) ^ 1 << 63, gp),
        ("the first of the upper half", u64::MAX << (bits - 1), absent),
        ("bit 63 alone", 1 << 63, gp),
        ("the 57-bit address of bit 50", 1 << 50, if levels == 5 { absent } else { gp }),
    ] {
        a.probe(format!("read of {name}"), SOURCE, expected, |a| {
            emit!(a; mov(rdi, address); mov(al, byte_ptr(rdi)););
            Ok(())
        })?;
    }
    a.probe("two bytes across the end of the lower half", SOURCE, gp, |a| {
        emit!(a; mov(rdi, (1u64 << (bits - 1)) - 1); mov(ax, word_ptr(rdi)););
        Ok(())
    })
}
