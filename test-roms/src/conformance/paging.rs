//! Paging permissions with 32-bit entries: every combination of U/S and R/W at both levels, CR0.WP,
//! SMEP, SMAP with EFLAGS.AC, kind of access and level of privilege.

use iced_x86::code_asm::*;

use super::kit::{self, CASE, Case, Kit, OUTCOME, SCRATCH};
use super::{ACCESSED, DIRTY, Kind, NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const DIRECTORY: u32 = SCRATCH + 0x1_0000;
const LOW_TABLE: u32 = DIRECTORY + 0x1000;
const TABLE: u32 = DIRECTORY + 0x2000;
const PAGE: u32 = DIRECTORY + 0x3000;
/// The page under test, by linear address: the first of the second directory entry.
const LINEAR: u32 = 0x40_0000;
/// The ROM lies here once more, for level 3.
const USER_ALIAS: u32 = 0x10_0000;
const ROM_PAGES: u32 = 16;

const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;

const SOURCE: &str = "SDM vol. 3A 4.6.1, 4.7, 4.8";

/// What a case does, from the bits of its number.
#[derive(Clone, Copy)]
pub(super) struct Setting(pub(super) u32);

/// How the page is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    Fetch,
    /// A read, and the last entry is not present.
    Absent,
}

impl Setting {
    pub(super) const CASES: u32 = 1 << 11;

    fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 != 0
    }
    fn writable(self) -> [bool; 2] {
        [self.bit(0), self.bit(2)]
    }
    fn user_page(self) -> [bool; 2] {
        [self.bit(1), self.bit(3)]
    }
    fn write_protect(self) -> bool {
        self.bit(4)
    }
    fn smep(self) -> bool {
        self.bit(5)
    }
    fn smap(self) -> bool {
        self.bit(6)
    }
    fn ac(self) -> bool {
        self.bit(7)
    }
    fn access(self) -> Access {
        [Access::Read, Access::Write, Access::Fetch, Access::Absent][(self.0 >> 8 & 3) as usize]
    }
    fn user(self) -> bool {
        self.bit(10)
    }

    pub(super) fn name(self) -> String {
        let entry = |level: usize| {
            let user = if self.user_page()[level] { "U" } else { "S" };
            let writable = if self.writable()[level] { "W" } else { "R" };
            format!("{user}{writable}")
        };
        let mut name = format!("{:?} at level {}", self.access(), 3 * u32::from(self.user()));
        name += &format!(", upper entry {}, last entry {}", entry(0), entry(1));
        for (set, what) in [
            (self.write_protect(), ", WP"),
            (self.smep(), ", SMEP"),
            (self.smap(), ", SMAP"),
            (self.ac(), ", AC"),
        ] {
            name += if set { what } else { "" };
        }
        name
    }

    /// SDM vol. 3A, 4.6.1, paragraph by paragraph: a page is a user-mode address if all entries say
    /// so, and writable if all do. `no_execute` is whether one of them forbids fetches.
    pub(super) fn allowed(self, no_execute: bool) -> bool {
        let user_page = self.user_page() == [true; 2];
        let writable = self.writable() == [true; 2];
        // Explicit accesses of a supervisor to user pages take EFLAGS.AC where SMAP is on.
        let open = !user_page || !self.smap() || self.ac();
        match (self.access(), self.user()) {
            (Access::Absent, _) => false,
            (Access::Read, false) => open,
            (Access::Write, false) => open && (writable || !self.write_protect()),
            (Access::Fetch, false) => !(user_page && self.smep() || no_execute),
            (Access::Read, true) => user_page,
            (Access::Write, true) => user_page && writable,
            (Access::Fetch, true) => user_page && !no_execute,
        }
    }

    /// 4.7: the error code. I/D is set for fetches if SMEP is on, or NXE with 8-byte entries.
    pub(super) fn error_code(self, nxe: bool) -> u32 {
        let fetch = self.access() == Access::Fetch && (self.smep() || nxe);
        u32::from(self.access() != Access::Absent)
            | u32::from(self.access() == Access::Write) << 1
            | u32::from(self.user()) << 2
            | u32::from(fetch) << 4
    }

    /// 4.8: an access that is allowed sets the accessed flag, a write the dirty flag. What a fault
    /// does to the accessed flag is the processor's choice.
    pub(super) fn case(self, no_execute: bool, nxe: bool) -> Case {
        const PF: u8 = 14;
        let dirty = if self.access() == Access::Write { DIRTY } else { 0 };
        if self.allowed(no_execute) {
            (self.name(), NOTHING | ACCESSED | dirty, u32::MAX)
        } else {
            (self.name(), exception(PF, self.error_code(nxe)), !ACCESSED)
        }
    }
}

pub(super) fn rom() -> Emit<Rom> {
    kit::rom("paging", "permissions with 32-bit page-table entries", |a| {
        emit_tables(a)?;
        a.user_alias = USER_ALIAS;
        let cases = (0..Setting::CASES).map(|n| Setting(n).case(false, false));
        a.matrix(SOURCE, Kind::Outcome, cases, emit_case, |a| {
            // A and D of the entry, bits 5 and 6, become those of the outcome.
            emit!(a;
                mov(eax, dword_ptr(TABLE));
                and(eax, 0x60);
                shl(eax, 19);
                or(dword_ptr(OUTCOME), eax);
            );
            Ok(())
        })
    })
}

/// Maps the first 4 MiB one to one, for level 0; the ROM once more for level 3, and its stack.
fn emit_tables(a: &mut Kit<'_, '_>) -> Emit {
    const RET: u32 = 0xc3;
    let user_rom = LOW_TABLE + 4 * ((crate::rom::ROM_BASE + USER_ALIAS) >> 12);
    let user_stack = LOW_TABLE + 4 * ((kit::USER_STACK - 1) >> 12);
    emit!(a;
        mov(edi, DIRECTORY);
        mov(ecx, 0x1000);
        xor(eax, eax);
        rep_stosd();
        mov(dword_ptr(DIRECTORY), LOW_TABLE | PRESENT | WRITABLE | USER);
        mov(edi, LOW_TABLE);
        mov(eax, PRESENT | WRITABLE);
        at("identity");
        stosd();
        add(eax, 0x1000);
        cmp(edi, LOW_TABLE + 0x1000);
        jb -> "identity";
        mov(edi, user_rom);
        mov(eax, crate::rom::ROM_BASE | PRESENT | USER);
        mov(ecx, ROM_PAGES);
        at("alias");
        stosd();
        add(eax, 0x1000);
        loop_ -> "alias";
        or(dword_ptr(user_stack), USER);
        mov(byte_ptr(PAGE), RET);
        mov(eax, DIRECTORY);
        mov(cr3, eax);
        mov(eax, cr0);
        or(eax, 0x8000_0000u32);
        mov(cr0, eax);
    );
    Ok(())
}

fn emit_case(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a;
        mov(ebx, dword_ptr(CASE));
        // Both entries.
        mov(eax, ebx);
        and(eax, 3);
        lea(eax, ptr(eax * 2 + (TABLE | PRESENT)));
        mov(dword_ptr(DIRECTORY + 4), eax);
        mov(eax, ebx);
        shr(eax, 2);
        and(eax, 3);
        lea(eax, ptr(eax * 2 + (PAGE | PRESENT)));
        mov(ecx, ebx);
        and(ecx, 0x300);
        cmp(ecx, 0x300);
        jne -> ".present";
        and(eax, !PRESENT);
        at(".present");
        mov(dword_ptr(TABLE), eax);
        // WP is bit 16 of CR0, SMEP and SMAP are bits 20 and 21 of CR4, AC is bit 18 of EFLAGS.
        mov(eax, cr0);
        btr(eax, 16);
        bt(ebx, 4);
        jnc -> ".unprotected";
        bts(eax, 16);
        at(".unprotected");
        mov(cr0, eax);
        mov(eax, ebx);
        shr(eax, 5);
        and(eax, 3);
        shl(eax, 20);
        mov(cr4, eax);
        pushfd();
        btr(dword_ptr(esp), 18);
        bt(ebx, 7);
        jnc -> ".no_ac";
        bts(dword_ptr(esp), 18);
        at(".no_ac");
        popfd();
        mov(eax, cr3);
        mov(cr3, eax);
        mov(edi, LINEAR);
        mov(esi, ebx);
        shr(esi, 8);
        and(esi, 3);
        bt(ebx, 10);
        jc -> "user_case";
    );
    emit_access(a, "supervisor")?;
    emit!(a; jmp -> "done"; at("user_case"););
    a.to_user(0)?;
    emit_access(a, "user")?;
    a.back()?;
    a.at("done")
}

/// The access at EDI: a read, a write or a fetch by ESI.
fn emit_access(a: &mut Kit<'_, '_>, whose: &str) -> Emit {
    let label = |what: &str| format!("{whose}_{what}");
    emit!(a;
        cmp(esi, 1);
        je -> &label("write");
        cmp(esi, 2);
        je -> &label("fetch");
        mov(al, byte_ptr(edi));
        jmp -> &label("end");
        at(&label("write"));
        mov(byte_ptr(edi), 0xc3);
        jmp -> &label("end");
        at(&label("fetch"));
        call(edi);
        at(&label("end"));
    );
    Ok(())
}
