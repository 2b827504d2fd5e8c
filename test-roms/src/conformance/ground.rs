//! What the ground for checks has in common in 32-bit and in 64-bit mode: where things lie, stubs of
//! handlers, reports, matrices of cases.

use std::ops::DerefMut;

use iced_x86::code_asm::*;

use super::script::{Case, Script};
use super::{Kind, REPORT_PORT};
use crate::rom::{Emit, Section, emit};

/// Where things lie in RAM.
pub(super) const GDT: u32 = 0x1000;
pub(super) const GDT_SIZE: u32 = 0x400;
pub(super) const IDT: u32 = 0x2000;
pub(super) const TSS: u32 = 0x3000;
pub(super) const VARIABLES: u32 = 0x4000;
/// Ends of stacks: of the checks, of handlers that come from an outer level, of level 3.
pub(super) const STACK: u32 = 0x6000;
pub(super) const INNER_STACK: u32 = 0x7000;
pub(super) const USER_STACK: u32 = 0x8000;
/// Space for the checks themselves, up to 80000h.
pub(super) const SCRATCH: u32 = 0x1_0000;

/// Handlers for all exceptions, interrupts of the 8259s, and [`BACK`].
pub(super) const VECTORS: u8 = 0x50;
/// The interrupt with which code of level 3 ends its check.
pub(super) const BACK: u8 = 0x40;
/// Vectors with an error code (SDM vol. 3A, table 7-1).
const WITH_ERROR_CODE: [u8; 7] = [8, 10, 11, 12, 13, 14, 17];

/// The label of a vector's stub.
pub(super) fn stub(vector: u8) -> String {
    format!("vector_{vector}")
}

/// Stubs that push the vector, and a 0 in the place of a missing error code, and go to `hook`.
pub(super) fn emit_stubs(a: &mut Section<'_>) -> Emit {
    for vector in 0..VECTORS {
        a.at(&stub(vector))?;
        if !WITH_ERROR_CODE.contains(&vector) {
            a.push(0)?;
        }
        emit!(a; push(i32::from(vector)); jmp -> "hook";);
    }
    Ok(())
}

/// The routine `report`, which writes a value as a [`super::Report`], whose number lies at `index`.
/// `save` leaves the value's low half in EAX and the high one in EBX; until `restore`, EAX, EBX, ECX,
/// EDX, ESI and flags change.
pub(super) fn emit_report(
    a: &mut Section<'_>,
    index: u32,
    save: impl FnOnce(&mut Section<'_>) -> Emit,
    restore: impl FnOnce(&mut Section<'_>) -> Emit,
) -> Emit {
    a.at("report")?;
    save(a)?;
    emit!(a; call -> "report_value";);
    restore(a)?;
    emit!(a;
        ret();
        at("report_value");
        mov(esi, eax);
        mov(eax, dword_ptr(index));
        inc(dword_ptr(index));
        mov(ecx, eax);
        not(ecx);
        shl(ecx, 16);
        movzx(eax, ax);
        or(eax, ecx);
        mov(edx, u32::from(REPORT_PORT));
        call -> "report_word";
        mov(eax, esi);
        call -> "report_word";
        mov(eax, ebx);
        at("report_word");
        mov(ecx, 4);
        at(".byte");
        out(dx, al);
        shr(eax, 8);
        loop_ -> ".byte";
        ret();
    );
    Ok(())
}

/// Executes `code` for each case, with its number at `number`, and reports what it leaves at `outcome`.
pub(super) fn matrix<'s, 'rom: 's, K: DerefMut<Target = Script<'s, 'rom>>>(
    kit: &mut K,
    [number, outcome]: [u32; 2],
    source: &'static str,
    kind: Kind,
    cases: impl IntoIterator<Item = Case>,
    code: impl FnOnce(&mut K) -> Emit,
) -> Emit {
    let count = kit.note_all(source, kind, cases);
    let again = kit.fresh("matrix");
    emit!(kit; mov(dword_ptr(number), 0); at(&again););
    code(kit)?;
    emit!(kit;
        mov(eax, dword_ptr(outcome));
        call -> "report";
        inc(dword_ptr(number));
        cmp(dword_ptr(number), count);
        jb -> &again;
    );
    Ok(())
}
