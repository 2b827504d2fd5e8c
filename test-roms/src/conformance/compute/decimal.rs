//! Decimal adjustments, for every AL, with every AF and CF (SDM vol. 2, AAA to DAS).

use iced_x86::code_asm::*;

use super::integer::{AF, CF, PF, SF, Size, ZF, flag, of_result};
use crate::conformance::kit::{self, CASE, Kit, OUTCOME};
use crate::conformance::script::Case;
use crate::conformance::{Kind, Rom};
use crate::rom::{Emit, emit};

/// What AX and the flags become: the result, flags, and which are defined.
type Rule = fn(u64, u64) -> (u64, u64, u64);
const BYTE: Size = Size(8);

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    kit::rom("decimal", "AAA, AAS, DAA, DAS, AAM, AAD of every AL", &[], |a| {
        let list: [(&str, &[u8], Rule); 8] = [
            ("AAA", &[0x37], |v, f| ascii(v, f, 0x106)),
            ("AAS", &[0x3f], |v, f| ascii(v, f, 0x106_u64.wrapping_neg())),
            ("DAA", &[0x27], |v, f| packed(v, f, false)),
            ("DAS", &[0x2f], |v, f| packed(v, f, true)),
            ("AAM", &[0xd4, 10], |v, _| split(v, 10)),
            ("AAM by 7", &[0xd4, 7], |v, _| split(v, 7)),
            ("AAD", &[0xd5, 10], |v, _| join(v, 10)),
            ("AAD by 255", &[0xd5, 255], |v, _| join(v, 255)),
        ];
        for (name, code, rule) in list {
            adjust(a, name, code, rule)?;
        }
        Ok(())
    })
}

/// All AL with AH = 0Ah, and CF and AF from bits 8 and 9 of the case.
fn adjust(a: &mut Kit<'_, '_>, name: &str, code: &[u8], rule: Rule) -> Emit {
    const AH: u64 = 0x0a00;
    let cases = (0..0x400_u64).map(|n| -> Case {
        let (before, flags) = (AH | n & 0xff, flag(n & 0x100 != 0, CF) | flag(n & 0x200 != 0, AF));
        let (result, after, defined) = rule(before, flags);
        let name = format!("{name} of AL {:#04x}, flags {flags:#x}", n & 0xff);
        (name, (result & 0xffff) << 8 | after, 0xff_ff00 | defined)
    });
    a.matrix(
        "SDM vol. 2, AAA, AAS, AAM, AAD, DAA, DAS",
        Kind::Number,
        cases,
        |a| {
            emit!(a;
                mov(ebx, dword_ptr(CASE));
                movzx(eax, bh);
                // CF is bit 0 and AF bit 4.
                mov(edx, eax);
                and(edx, 1);
                and(eax, 2);
                lea(edx, ptr(edx + eax * 8 + 2));
                push(edx);
                mov(eax, AH as u32);
                mov(al, bl);
                popfd();
            );
            a.db(code)?;
            emit!(a;
                pushfd();
                shl(eax, 8);
                pop(edx);
                mov(al, dl);
                and(eax, 0xff_ffff);
                mov(dword_ptr(OUTCOME), eax);
            );
            Ok(())
        },
        |_| Ok(()),
    )
}

/// AAA and AAS: by the low digit or AF, 6 and 1 are added to or taken from AX.
fn ascii(v: u64, flags: u64, by: u64) -> (u64, u64, u64) {
    let adjusts = v & 15 > 9 || flags & AF != 0;
    let result = if adjusts { v.wrapping_add(by) } else { v } & 0xff0f;
    (result, flag(adjusts, AF | CF), AF | CF)
}

/// DAA and DAS: 6 by the low digit or AF, 60h by the whole or CF. A borrow of the 6 is DAS's carry
/// too.
fn packed(v: u64, flags: u64, subtracts: bool) -> (u64, u64, u64) {
    let low_byte = v & 0xff;
    let low = low_byte & 15 > 9 || flags & AF != 0;
    let high = low_byte > 0x99 || flags & CF != 0;
    let by = flag(low, 6) + flag(high, 0x60);
    let adjusted = if subtracts { low_byte.wrapping_sub(by) } else { low_byte + by } & 0xff;
    let carry = high || subtracts && low && low_byte < 6;
    let set = flag(low, AF) | flag(carry, CF) | of_result(BYTE, adjusted);
    (v & 0xff00 | adjusted, set, AF | CF | ZF | SF | PF)
}

fn split(v: u64, base: u64) -> (u64, u64, u64) {
    let low_byte = v & 0xff;
    (((low_byte / base) << 8) | (low_byte % base), of_result(BYTE, low_byte % base), ZF | SF | PF)
}

fn join(v: u64, base: u64) -> (u64, u64, u64) {
    let low_byte = ((v & 0xff) + (v >> 8) * base) & 0xff;
    (low_byte, of_result(BYTE, low_byte), ZF | SF | PF)
}
