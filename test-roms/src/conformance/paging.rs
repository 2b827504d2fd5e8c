//! Paging permissions with 4-byte entries, and with the 8-byte ones of PAE: every combination of U/S
//! and R/W at both levels, XD at the last, CR0.WP, SMEP, SMAP with EFLAGS.AC, kind of access and
//! level of privilege.

use iced_x86::code_asm::*;

use super::features::{Feature, NX, PAE, SMAP, SMEP};
use super::kit::{self, CASE, Kit, OUTCOME, SCRATCH};
use super::script::{Case, with_set};
use super::{ACCESSED, DIRTY, Kind, NOTHING, Rom, exception};
use crate::rom::{Emit, ROM_BASE, emit};

const POINTERS: u32 = SCRATCH + 0x1_0000;
const DIRECTORY: u32 = POINTERS + 0x1000;
const LOW_TABLE: u32 = DIRECTORY + 0x1000;
const TABLE: u32 = DIRECTORY + 0x2000;
const PAGE: u32 = DIRECTORY + 0x3000;
/// The page under test, by linear address: the first of the second directory entry.
const LINEAR: u32 = 0x40_0000;
/// The ROM lies here once more, for level 3.
const USER_ALIAS: u32 = 0x10_0000;
const ROM_PAGES: u32 = 16;
const EFER: u32 = 0xc000_0080;
const NXE: u32 = 1 << 11;
const CR4_PAE: u32 = 1 << 5;

const PRESENT: u32 = 1;
const WRITABLE: u32 = 2;
const USER: u32 = 4;

const SOURCE: &str = "SDM vol. 3A 4.6.1, 4.7, 4.8";

/// The size of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// 4 bytes, two levels.
    Legacy,
    /// 8 bytes, with XD; above both levels four pointers that say nothing of permissions.
    Pae,
}

impl Format {
    const fn entry(self) -> u32 {
        match self {
            Format::Legacy => 4,
            Format::Pae => 8,
        }
    }
    /// Where the directory's entry of a linear address lies.
    const fn directory_entry(self, linear: u32) -> u32 {
        let shift = match self {
            Format::Legacy => 22,
            Format::Pae => 21,
        };
        DIRECTORY + (linear >> shift) * self.entry()
    }
    /// Half the cases have no XD where there is none.
    const fn cases(self) -> u32 {
        match self {
            Format::Legacy => Setting::CASES / 2,
            Format::Pae => Setting::CASES,
        }
    }
}

/// What a case does, from the bits of its number.
#[derive(Clone, Copy)]
struct Setting(u32);

/// How the page is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    Fetch,
    /// A read, and the last entry is not present.
    Absent,
}

impl Setting {
    const CASES: u32 = 1 << 12;

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
    fn no_execute(self) -> bool {
        self.bit(11)
    }

    fn name(self) -> String {
        let entry = |level: usize| {
            let user = if self.user_page()[level] { "U" } else { "S" };
            let writable = if self.writable()[level] { "W" } else { "R" };
            format!("{user}{writable}")
        };
        let access = format!("{:?} at level {}", self.access(), 3 * u32::from(self.user()));
        with_set(
            format!("{access}, upper entry {}, last entry {}", entry(0), entry(1)),
            &[
                (self.write_protect(), ", WP"),
                (self.smep(), ", SMEP"),
                (self.smap(), ", SMAP"),
                (self.ac(), ", AC"),
                (self.no_execute(), ", XD"),
            ],
        )
    }

    /// SDM vol. 3A, 4.6.1, paragraph by paragraph: a page is a user-mode address if all entries say
    /// so, and writable if all do; one XD forbids fetches.
    fn allowed(self) -> bool {
        let user_page = self.user_page() == [true; 2];
        let writable = self.writable() == [true; 2];
        // Explicit accesses of a supervisor to user pages take EFLAGS.AC where SMAP is on.
        let open = !user_page || !self.smap() || self.ac();
        match (self.access(), self.user()) {
            (Access::Absent, _) => false,
            (Access::Read, false) => open,
            (Access::Write, false) => open && (writable || !self.write_protect()),
            (Access::Fetch, false) => !(user_page && self.smep() || self.no_execute()),
            (Access::Read, true) => user_page,
            (Access::Write, true) => user_page && writable,
            (Access::Fetch, true) => user_page && !self.no_execute(),
        }
    }

    /// 4.7: the error code. I/D is set for fetches if SMEP is on, or NXE with 8-byte entries.
    fn error_code(self, nxe: bool) -> u32 {
        let fetch = self.access() == Access::Fetch && (self.smep() || nxe);
        u32::from(self.access() != Access::Absent)
            | u32::from(self.access() == Access::Write) << 1
            | u32::from(self.user()) << 2
            | u32::from(fetch) << 4
    }

    /// 4.8: an access that is allowed sets the accessed flag, a write the dirty flag. What a fault
    /// does to the accessed flag is the processor's choice.
    fn case(self, nxe: bool) -> Case {
        const PF: u8 = 14;
        let dirty = if self.access() == Access::Write { DIRTY } else { 0 };
        if self.allowed() {
            (self.name(), (NOTHING | ACCESSED | dirty).into(), u64::MAX)
        } else {
            (self.name(), exception(PF, self.error_code(nxe)).into(), !u64::from(ACCESSED))
        }
    }
}

pub(super) fn legacy() -> Emit<Rom> {
    rom("paging", "permissions with 4-byte page-table entries", &[SMEP, SMAP], Format::Legacy)
}

pub(super) fn pae() -> Emit<Rom> {
    const NEEDS: &[Feature] = &[PAE, NX, SMEP, SMAP];
    rom("paging-pae", "permissions with 8-byte page-table entries", NEEDS, Format::Pae)
}

fn rom(name: &'static str, about: &'static str, needs: &[Feature], format: Format) -> Emit<Rom> {
    kit::rom(name, about, needs, |a| {
        emit_tables(a, format)?;
        a.user_alias = USER_ALIAS;
        let cases = (0..format.cases()).map(|n| Setting(n).case(format == Format::Pae));
        a.matrix(
            SOURCE,
            Kind::Outcome,
            cases,
            |a| emit_case(a, format),
            |a| {
                // A and D of the entry, bits 5 and 6, become those of the outcome.
                emit!(a;
                    mov(eax, dword_ptr(TABLE));
                    and(eax, 0x60);
                    shl(eax, 19);
                    or(dword_ptr(OUTCOME), eax);
                );
                Ok(())
            },
        )
    })
}

/// Maps the first MiBs one to one, for level 0; the ROM once more for level 3, and its stack.
fn emit_tables(a: &mut Kit<'_, '_>, format: Format) -> Emit {
    const RET: u32 = 0xc3;
    let size = format.entry();
    let entry = |linear: u32| LOW_TABLE + size * (linear >> 12);
    emit!(a;
        mov(edi, POINTERS);
        mov(ecx, (PAGE - POINTERS) / 4);
        xor(eax, eax);
        rep_stosd();
        mov(dword_ptr(POINTERS), DIRECTORY | PRESENT);
        mov(dword_ptr(DIRECTORY), LOW_TABLE | PRESENT | WRITABLE | USER);
        mov(edi, LOW_TABLE);
        mov(eax, PRESENT | WRITABLE);
        at("identity");
        mov(dword_ptr(edi), eax);
        add(edi, size);
        add(eax, 0x1000);
        cmp(edi, LOW_TABLE + 0x1000);
        jb -> "identity";
        mov(edi, entry(ROM_BASE + USER_ALIAS));
        mov(eax, ROM_BASE | PRESENT | USER);
        mov(ecx, ROM_PAGES);
        at("alias");
        mov(dword_ptr(edi), eax);
        add(edi, size);
        add(eax, 0x1000);
        loop_ -> "alias";
        or(dword_ptr(entry(kit::USER_STACK - 1)), USER);
        mov(byte_ptr(PAGE), RET);
    );
    match format {
        Format::Legacy => a.mov(eax, DIRECTORY)?,
        Format::Pae => emit!(a;
            // NXE, then PAE.
            mov(ecx, EFER);
            rdmsr();
            or(eax, NXE);
            wrmsr();
            mov(eax, CR4_PAE);
            mov(cr4, eax);
            mov(eax, POINTERS);
        ),
    }
    emit!(a; mov(cr3, eax); mov(eax, cr0); or(eax, 0x8000_0000u32); mov(cr0, eax););
    Ok(())
}

fn emit_case(a: &mut Kit<'_, '_>, format: Format) -> Emit {
    let cr4_base = if format == Format::Pae { CR4_PAE } else { 0 };
    emit!(a;
        mov(ebx, dword_ptr(CASE));
        // Both entries.
        mov(eax, ebx);
        and(eax, 3);
        lea(eax, ptr(eax * 2 + (TABLE | PRESENT)));
        mov(dword_ptr(format.directory_entry(LINEAR)), eax);
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
        // XD is bit 63; with 4-byte entries the case's bit is clear, and this another page's entry.
        mov(eax, ebx);
        and(eax, 1 << 11);
        shl(eax, 20);
        mov(dword_ptr(TABLE + 4), eax);
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
        or(eax, cr4_base);
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
    a.enter_user(0)?;
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
