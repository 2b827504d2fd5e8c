//! Protection keys (SDM vol. 3A, 4.6.2): every combination of AD and WD of the page's key, CR4.PKE,
//! CR0.WP, U/S, R/W, SMAP with RFLAGS.AC, access and level of privilege.

use iced_x86::code_asm::*;

use super::kit::{self, About, CASE, CR4_PAE, Kit, PRESENT, SCRATCH, USER_PAGE, WRITABLE};
use super::{GP, PF, UD};
use crate::conformance::features::{NX, PKU, SMAP};
use crate::conformance::script::{Case, with_set};
use crate::conformance::{Kind, NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const TABLE: u32 = SCRATCH + 0x2_0000;
const PAGE: u32 = SCRATCH + 0x3_0000;
/// The page under test: the first behind the lowest GiB.
const LINEAR: u32 = 0x4000_0000;
const DIRECTORY: u32 = TABLE + 0x1000;
const CR4_PKE: u32 = 1 << 22;
const SOURCE: &str = "SDM vol. 3A 4.6.2, 4.7";
/// The page's key, and bit 59 of an entry, where it begins.
const KEY: u32 = 9;

/// What a case does, from the bits of its number.
#[derive(Clone, Copy)]
struct Setting(u32);

impl Setting {
    const CASES: u32 = 3 << 9;

    fn bit(self, n: u32) -> bool {
        self.0 >> n & 1 != 0
    }
    fn writable(self) -> bool {
        self.bit(0)
    }
    fn user_page(self) -> bool {
        self.bit(1)
    }
    fn access_disabled(self) -> bool {
        self.bit(2)
    }
    fn write_disabled(self) -> bool {
        self.bit(3)
    }
    fn enabled(self) -> bool {
        self.bit(4)
    }
    fn write_protect(self) -> bool {
        self.bit(5)
    }
    fn smap(self) -> bool {
        self.bit(6)
    }
    fn ac(self) -> bool {
        self.bit(7)
    }
    fn user(self) -> bool {
        self.bit(8)
    }
    fn access(self) -> u32 {
        (self.0 >> 9) % 3
    }

    fn name(self) -> String {
        let access = ["read", "write", "fetch"][self.access() as usize];
        with_set(
            format!("{access} at level {}", 3 * u32::from(self.user())),
            &[
                (true, if self.user_page() { ", U" } else { ", S" }),
                (true, if self.writable() { "W" } else { "R" }),
                (self.enabled(), ", PKE"),
                (self.access_disabled(), ", AD"),
                (self.write_disabled(), ", WD"),
                (self.write_protect(), ", WP"),
                (self.smap(), ", SMAP"),
                (self.ac(), ", AC"),
            ],
        )
    }

    /// 4.6.2: keys speak of data accesses to user-mode addresses. WD binds a supervisor if WP does.
    fn key_refuses(self) -> bool {
        let write = self.access() == 1;
        let bound = self.user() || self.write_protect();
        let data = self.enabled() && self.user_page() && self.access() != 2;
        data && (self.access_disabled() || write && self.write_disabled() && bound)
    }

    /// 4.6.1.
    fn page_refuses(self) -> bool {
        let closed = self.user_page() && self.smap() && !self.ac();
        match (self.access(), self.user()) {
            (0, false) => closed,
            (1, false) => closed || !self.writable() && self.write_protect(),
            (1, true) => !self.user_page() || !self.writable(),
            (_, true) => !self.user_page(),
            _ => false,
        }
    }

    /// 4.7: PK, bit 5, is set if the key refuses, whatever else does: a fault may have several
    /// reasons.
    fn case(self) -> Case {
        let key = self.key_refuses();
        let outcome = if key || self.page_refuses() {
            let error = 1
                | u32::from(self.access() == 1) << 1
                | u32::from(self.user()) << 2
                | u32::from(self.access() == 2) << 4
                | u32::from(key) << 5;
            exception(PF, error)
        } else {
            NOTHING
        };
        (self.name(), outcome.into(), u64::MAX)
    }
}

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "protection-keys",
        about: "protection keys of user-mode pages, PKRU",
        needs: &[PKU, SMAP, NX],
        five_levels: false,
    };
    kit::rom(about, |a| {
        registers(a)?;
        emit!(a;
            mov(qword_ptr(kit::POINTERS + 8), (DIRECTORY | PRESENT | WRITABLE | USER_PAGE) as i32);
            mov(qword_ptr(DIRECTORY), (TABLE | PRESENT | WRITABLE | USER_PAGE) as i32);
            mov(byte_ptr(PAGE), 0xc3);
        );
        a.matrix(
            SOURCE,
            Kind::Outcome,
            (0..Setting::CASES).map(|n| Setting(n).case()),
            emit_case,
            |_| Ok(()),
        )
    })
}

/// RDPKRU and WRPKRU (SDM vol. 2).
fn registers(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, RDPKRU, WRPKRU";
    let enable = |a: &mut Kit<'_, '_>| -> Emit {
        emit!(a; mov(rax, cr4); or(eax, CR4_PKE as i32); mov(cr4, rax); xor(ecx, ecx); xor(edx, edx););
        Ok(())
    };
    a.probe("RDPKRU without CR4.PKE", SOURCE, exception(UD, 0), |a| {
        emit!(a; xor(ecx, ecx); rdpkru(););
        Ok(())
    })?;
    a.probe("WRPKRU without CR4.PKE", SOURCE, exception(UD, 0), |a| {
        emit!(a; xor(ecx, ecx); xor(edx, edx); xor(eax, eax); wrpkru(););
        Ok(())
    })?;
    for (name, code) in [
        (
            "RDPKRU with ECX 1",
            (|a: &mut Kit<'_, '_>| {
                emit!(a; mov(ecx, 1u32); rdpkru(););
                Ok(())
            }) as fn(&mut Kit<'_, '_>) -> Emit,
        ),
        ("WRPKRU with ECX 1", |a| {
            emit!(a; mov(ecx, 1u32); wrpkru(););
            Ok(())
        }),
        ("WRPKRU with EDX 1", |a| {
            emit!(a; mov(edx, 1u32); wrpkru(););
            Ok(())
        }),
    ] {
        a.probe(name, SOURCE, exception(GP, 0), |a| {
            enable(a)?;
            code(a)
        })?;
    }
    a.value("PKRU is read as written, by level 3 too", SOURCE, [0x1234_5670, u64::MAX], |a| {
        a.attempt(|a| {
            enable(a)?;
            emit!(a; mov(eax, 0x1234_5670u32); wrpkru(););
            // The user's stack has key 0, which must stay open.
            a.enter_user(0)?;
            emit!(a; xor(ecx, ecx); mov(rdx, u64::MAX); rdpkru(););
            emit!(a; shl(rdx, 32); or(rax, rdx); mov(r8, rax););
            a.back()
        })?;
        a.mov(rax, r8)
    })?;
    a.value("CPUID shows CR4.PKE as OSPKE", "SDM vol. 2, CPUID", [1, u64::MAX], |a| {
        emit!(a; mov(eax, 7u32); xor(ecx, ecx); cpuid(); shr(ecx, 4); and(ecx, 1); mov(rax, rcx););
        Ok(())
    })
}

fn emit_case(a: &mut Kit<'_, '_>) -> Emit {
    let (user, done) = (a.fresh("user_case"), a.fresh("done"));
    emit!(a;
        mov(ebx, dword_ptr(CASE));
        // The entry: key, R/W, U/S.
        mov(eax, ebx);
        and(eax, 3);
        lea(eax, ptr(rax * 2 + (PAGE | PRESENT) as i32));
        mov(ecx, KEY);
        shl(rcx, 59);
        or(rax, rcx);
        mov(qword_ptr(TABLE), rax);
        // PKE stays on while PKRU is written.
        mov(eax, CR4_PAE | CR4_PKE);
        mov(cr4, rax);
        mov(eax, ebx);
        shr(eax, 2);
        and(eax, 3);
        shl(eax, 2 * KEY);
        xor(ecx, ecx);
        xor(edx, edx);
        wrpkru();
        mov(rax, cr0);
        btr(eax, 16);
        mov(ecx, ebx);
        shr(ecx, 5);
        and(ecx, 1);
        shl(ecx, 16);
        or(eax, ecx);
        mov(cr0, rax);
        // PKE is bit 22 of CR4, SMAP bit 21, AC bit 18 of RFLAGS.
        mov(eax, ebx);
        shr(eax, 4);
        and(eax, 1);
        shl(eax, 22);
        mov(ecx, ebx);
        shr(ecx, 6);
        and(ecx, 1);
        shl(ecx, 21);
        lea(eax, ptr(rax + rcx + CR4_PAE as i32));
        mov(cr4, rax);
        pushfq();
        btr(dword_ptr(rsp), 18);
        mov(ecx, ebx);
        shr(ecx, 7);
        and(ecx, 1);
        shl(ecx, 18);
        or(dword_ptr(rsp), ecx);
        popfq();
        mov(rax, cr3);
        mov(cr3, rax);
        mov(edi, LINEAR);
        mov(esi, ebx);
        shr(esi, 9);
        bt(ebx, 8);
        jc -> &user;
    );
    super::paging::emit_access(a)?;
    emit!(a; jmp -> &done; at(&user););
    a.enter_user(0)?;
    super::paging::emit_access(a)?;
    a.back()?;
    a.at(&done)
}
