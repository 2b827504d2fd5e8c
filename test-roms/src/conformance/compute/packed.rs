//! Packed integers in MMX, SSE and AVX registers.

use iced_x86::code_asm::*;

use super::integer::STATUS;
use super::lanes::*;
use super::rules::{EDGES, Input, Output, Reports, compute, enable_avx};
use crate::conformance::Rom;
use crate::conformance::features::{AVX2, Feature, MMX, SSE, SSE2, SSE4_1, SSE4_2, SSSE3};
use crate::conformance::long::kit::{self, About, Kit};
use crate::rom::{Emit, emit};

const SOURCE: &str = "SDM vol. 2, the instruction; vol. 1 4.9.1 to 12.6";

/// Opcodes behind 0Fh alone.
const PLAIN: u8 = 1;
/// Behind 0Fh 38h.
const LATER: u8 = 2;

/// An instruction: where it is in MMX, and where in SSE.
struct Row {
    name: &'static str,
    map: u8,
    opcode: u8,
    mmx: Option<Feature>,
    sse: Option<Feature>,
    /// VEX.W.
    wide: bool,
    /// What its second operand is.
    second: Second,
    rule: Rule,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Second {
    /// A vector.
    Vector,
    /// A count, of which 256 bits have one.
    Count,
    /// A count for each element.
    Counts,
}

/// In MMX and SSE2.
fn both(name: &'static str, opcode: u8, rule: Rule) -> Row {
    let (mmx, sse) = (Some(MMX), Some(SSE2));
    Row { name, map: PLAIN, opcode, mmx, sse, wide: false, second: Second::Vector, rule }
}

/// In MMX since another extension, and in SSE2.
fn since(mmx: Feature, row: Row) -> Row {
    Row { mmx: Some(mmx), ..row }
}

/// Not in MMX.
fn wider(sse: Feature, map: u8, row: Row) -> Row {
    Row { mmx: None, sse: Some(sse), map, ..row }
}

/// In SSSE3's two forms.
fn third(name: &'static str, opcode: u8, rule: Rule) -> Row {
    Row { mmx: Some(SSSE3), sse: Some(SSSE3), map: LATER, ..both(name, opcode, rule) }
}

fn fourth(name: &'static str, opcode: u8, rule: Rule) -> Row {
    wider(SSE4_1, LATER, both(name, opcode, rule))
}

fn by_count(name: &'static str, opcode: u8, rule: Rule) -> Row {
    Row { second: Second::Count, ..both(name, opcode, rule) }
}

/// In AVX2 alone.
fn by_counts(name: &'static str, opcode: u8, wide: bool, rule: Rule) -> Row {
    let row = both(name, opcode, rule);
    Row { mmx: None, sse: None, map: LATER, wide, second: Second::Counts, ..row }
}

fn rows() -> Vec<Row> {
    vec![
        both("PADDB", 0xfc, add::<1>),
        both("PADDW", 0xfd, add::<2>),
        both("PADDD", 0xfe, add::<4>),
        since(SSE2, both("PADDQ", 0xd4, add::<8>)),
        both("PSUBB", 0xf8, sub::<1>),
        both("PSUBW", 0xf9, sub::<2>),
        both("PSUBD", 0xfa, sub::<4>),
        since(SSE2, both("PSUBQ", 0xfb, sub::<8>)),
        both("PADDSB", 0xec, add_saturated::<1>),
        both("PADDSW", 0xed, add_saturated::<2>),
        both("PADDUSB", 0xdc, add_unsigned::<1>),
        both("PADDUSW", 0xdd, add_unsigned::<2>),
        both("PSUBSB", 0xe8, sub_saturated::<1>),
        both("PSUBSW", 0xe9, sub_saturated::<2>),
        both("PSUBUSB", 0xd8, sub_unsigned::<1>),
        both("PSUBUSW", 0xd9, sub_unsigned::<2>),
        both("PMULLW", 0xd5, low_product::<2>),
        both("PMULHW", 0xe5, high_product),
        since(SSE, both("PMULHUW", 0xe4, high_product_unsigned)),
        both("PMADDWD", 0xf5, products_summed),
        since(SSE2, both("PMULUDQ", 0xf4, wide_product_unsigned)),
        since(SSE, both("PAVGB", 0xe0, average::<1>)),
        since(SSE, both("PAVGW", 0xe3, average::<2>)),
        since(SSE, both("PMINUB", 0xda, smallest_unsigned::<1>)),
        since(SSE, both("PMAXUB", 0xde, largest_unsigned::<1>)),
        since(SSE, both("PMINSW", 0xea, smallest::<2>)),
        since(SSE, both("PMAXSW", 0xee, largest::<2>)),
        since(SSE, both("PSADBW", 0xf6, differences_summed)),
        both("PCMPEQB", 0x74, equal::<1>),
        both("PCMPEQW", 0x75, equal::<2>),
        both("PCMPEQD", 0x76, equal::<4>),
        both("PCMPGTB", 0x64, greater::<1>),
        both("PCMPGTW", 0x65, greater::<2>),
        both("PCMPGTD", 0x66, greater::<4>),
        both("PAND", 0xdb, and),
        both("PANDN", 0xdf, and_not),
        both("POR", 0xeb, or),
        both("PXOR", 0xef, xor),
        both("PACKSSWB", 0x63, pack::<2>),
        both("PACKSSDW", 0x6b, pack::<4>),
        both("PACKUSWB", 0x67, pack_unsigned::<2>),
        both("PUNPCKLBW", 0x60, unpack_low::<1>),
        both("PUNPCKLWD", 0x61, unpack_low::<2>),
        both("PUNPCKLDQ", 0x62, unpack_low::<4>),
        both("PUNPCKHBW", 0x68, unpack_high::<1>),
        both("PUNPCKHWD", 0x69, unpack_high::<2>),
        both("PUNPCKHDQ", 0x6a, unpack_high::<4>),
        wider(SSE2, PLAIN, both("PUNPCKLQDQ", 0x6c, unpack_low::<8>)),
        wider(SSE2, PLAIN, both("PUNPCKHQDQ", 0x6d, unpack_high::<8>)),
        by_count("PSRLW", 0xd1, shift_right::<2>),
        by_count("PSRLD", 0xd2, shift_right::<4>),
        by_count("PSRLQ", 0xd3, shift_right::<8>),
        by_count("PSRAW", 0xe1, shift_signed::<2>),
        by_count("PSRAD", 0xe2, shift_signed::<4>),
        by_count("PSLLW", 0xf1, shift_left::<2>),
        by_count("PSLLD", 0xf2, shift_left::<4>),
        by_count("PSLLQ", 0xf3, shift_left::<8>),
        third("PSHUFB", 0x00, shuffle),
        third("PHADDW", 0x01, add_across::<2>),
        third("PHADDD", 0x02, add_across::<4>),
        third("PHADDSW", 0x03, add_across_saturated),
        third("PMADDUBSW", 0x04, mixed_products_summed),
        third("PHSUBW", 0x05, sub_across::<2>),
        third("PHSUBD", 0x06, sub_across::<4>),
        third("PHSUBSW", 0x07, sub_across_saturated),
        third("PSIGNB", 0x08, sign::<1>),
        third("PSIGNW", 0x09, sign::<2>),
        third("PSIGND", 0x0a, sign::<4>),
        third("PMULHRSW", 0x0b, rounded_product),
        third("PABSB", 0x1c, absolute::<1>),
        third("PABSW", 0x1d, absolute::<2>),
        third("PABSD", 0x1e, absolute::<4>),
        fourth("PMULDQ", 0x28, wide_product),
        fourth("PCMPEQQ", 0x29, equal::<8>),
        fourth("PACKUSDW", 0x2b, pack_unsigned::<4>),
        fourth("PMINSB", 0x38, smallest::<1>),
        fourth("PMINSD", 0x39, smallest::<4>),
        fourth("PMINUW", 0x3a, smallest_unsigned::<2>),
        fourth("PMINUD", 0x3b, smallest_unsigned::<4>),
        fourth("PMAXSB", 0x3c, largest::<1>),
        fourth("PMAXSD", 0x3d, largest::<4>),
        fourth("PMAXUW", 0x3e, largest_unsigned::<2>),
        fourth("PMAXUD", 0x3f, largest_unsigned::<4>),
        fourth("PMULLD", 0x40, low_product::<4>),
        wider(SSE4_2, LATER, both("PCMPGTQ", 0x37, greater::<8>)),
        by_counts("PSRLVD", 0x45, false, shift_each_right::<4>),
        by_counts("PSRLVQ", 0x45, true, shift_each_right::<8>),
        by_counts("PSRAVD", 0x46, false, shift_each_signed),
        by_counts("PSLLVD", 0x47, false, shift_each_left::<4>),
        by_counts("PSLLVQ", 0x47, true, shift_each_left::<8>),
    ]
}

pub(in crate::conformance) fn mmx() -> Emit<Rom> {
    rom("packed-mmx", "results of packed integers in MMX registers", |a| {
        each(a, Form::Mmx, |row| row.mmx)
    })
}

pub(in crate::conformance) fn sse() -> Emit<Rom> {
    rom("packed-sse", "results of packed integers in XMM registers", |a| {
        each(a, Form::Sse, |row| row.sse)
    })
}

pub(in crate::conformance) fn avx() -> Emit<Rom> {
    rom("packed-avx", "results of packed integers in YMM registers", |a| {
        enable_avx(a)?;
        each(a, Form::Avx, |_| Some(AVX2))
    })
}

fn rom(
    name: &'static str,
    about: &'static str,
    checks: impl Fn(&mut Kit<'_, '_>) -> Emit,
) -> Emit<Rom> {
    kit::rom(About { name, about, needs: &[], five_levels: false }, checks)
}

/// All instructions that there are in `form`: what of the extensions has it there.
fn each(a: &mut Kit<'_, '_>, form: Form, since: impl Fn(&Row) -> Option<Feature>) -> Emit {
    for row in &rows() {
        if let Some(feature) = since(row) {
            a.need(&[feature]);
            operate(a, row, form)?;
        }
    }
    Ok(())
}

/// The registers that an instruction works with.
#[derive(Clone, Copy)]
enum Form {
    Mmx,
    Sse,
    Avx,
}

/// Edges in each place of an element; for shifts, counts around its sizes.
fn inputs(second: Second) -> Vec<Input> {
    const COUNTS: [u64; 12] = [0, 1, 7, 8, 15, 16, 31, 32, 63, 64, 1 << 32, u64::MAX];
    const PAIRS: [u64; 6] = [0x1f_0000_0001, 0x20_0000_0021, 0x3f, 0x40, 7, 1 << 63];
    let input = |n: usize| {
        let mixed = 0x8001_7fff_ff80_0180_u64.rotate_left(5 * n as u32) ^ EDGES[n % EDGES.len()];
        let other = 0x0123_4567_89ab_cdef_u64.rotate_left(7 * n as u32);
        let near = mixed.wrapping_sub(0x0001_0000_0100_0001);
        let operand = match second {
            Second::Vector => [other, mixed, near][n % 3],
            Second::Count => COUNTS[n % COUNTS.len()],
            Second::Counts => PAIRS[n % PAIRS.len()],
        };
        let third = other ^ EDGES[(n + 5) % EDGES.len()];
        Input { rax: mixed, rcx: operand, rdx: third, flags: [0, STATUS][n % 2] }
    };
    (0..24).map(input).collect()
}

fn operate(a: &mut Kit<'_, '_>, row: &Row, form: Form) -> Emit {
    let escape: &[u8] = if row.map == LATER { &[0x0f, 0x38] } else { &[0x0f] };
    // ModRM: of registers 0 and 1.
    let last = [row.opcode, 0xc1];
    let (name, code) = match form {
        Form::Mmx => (format!("{}, 64 bits", row.name), [escape, &last].concat()),
        Form::Sse => (format!("{}, 128 bits", row.name), [&[0x66], escape, &last].concat()),
        // VEX: the first operand is register 0 again, L is 1, the prefix 66h.
        Form::Avx => {
            let third = 0x7d | u8::from(row.wide) << 7;
            (
                format!("V{}, 256 bits", row.name),
                [&[0xc4, 0xe0 | row.map, third][..], &last].concat(),
            )
        }
    };
    let reports = Reports { rdx: !matches!(form, Form::Mmx), ..Reports::default() };
    let code = |a: &mut Kit<'_, '_>| match form {
        Form::Mmx => in_mmx(a, &code),
        Form::Sse => in_sse(a, &code),
        Form::Avx => in_avx(a, &code),
    };
    compute(a, (&name, SOURCE), &inputs(row.second), reports, code, |input| {
        result(row, form, input)
    })
}

fn in_mmx(a: &mut Kit<'_, '_>, code: &[u8]) -> Emit {
    emit!(a; movq(mm0, rax); movq(mm1, rcx););
    a.db(code)?;
    emit!(a; movq(rax, mm0); emms(););
    Ok(())
}

/// RAX and RCX to XMM0, RCX and RDX to XMM1.
fn load(a: &mut Kit<'_, '_>) -> Emit {
    emit!(a;
        movq(xmm0, rax);
        movq(xmm1, rcx);
        movq(xmm2, rdx);
        punpcklqdq(xmm0, xmm1);
        punpcklqdq(xmm1, xmm2);
    );
    Ok(())
}

fn in_sse(a: &mut Kit<'_, '_>, code: &[u8]) -> Emit {
    load(a)?;
    a.db(code)?;
    emit!(a; movq(rax, xmm0); psrldq(xmm0, 8); movq(rdx, xmm0););
    Ok(())
}

/// RCX and RDX, and RDX and RAX, are the upper halves. What is above 64 bits comes back in RDX, one
/// upon the other.
fn in_avx(a: &mut Kit<'_, '_>, code: &[u8]) -> Emit {
    load(a)?;
    emit!(a;
        movdqa(xmm3, xmm1);
        movq(xmm4, rax);
        punpcklqdq(xmm2, xmm4);
        vinserti128(ymm0, ymm0, xmm3, 1);
        vinserti128(ymm1, ymm1, xmm2, 1);
    );
    a.db(code)?;
    emit!(a;
        vextracti128(xmm1, ymm0, 1);
        vzeroupper();
        movq(rax, xmm0);
        psrldq(xmm0, 8);
        pxor(xmm0, xmm1);
        psrldq(xmm1, 8);
        pxor(xmm0, xmm1);
        movq(rdx, xmm0);
    );
    Ok(())
}

/// What the rule makes of the registers that the code above has loaded.
fn result(row: &Row, form: Form, input: &Input) -> Output {
    let [first, second, third] = [input.rax, input.rcx, input.rdx];
    let (low, rest) = match form {
        Form::Mmx => (row.of(&[first], &[second])[0], None),
        Form::Sse => {
            let made = row.of(&[first, second], &[second, third]);
            (made[0], Some(made[1]))
        }
        Form::Avx => {
            let made = row.of(&[first, second], &[second, third]);
            let counts = row.second == Second::Count;
            let other = if counts { [second, third] } else { [third, first] };
            let upper = row.of(&[second, third], &other);
            (made[0], Some(made[1] ^ upper[0] ^ upper[1]))
        }
    };
    Output { rax: Some(low), rdx: rest, flags: [input.flags, STATUS], ..Output::default() }
}

impl Row {
    /// The rule for a lane that is made of these parts, as such parts.
    fn of(&self, first: &[u64], second: &[u64]) -> Vec<u64> {
        let bytes = |parts: &[u64]| -> Vec<u8> {
            parts.iter().flat_map(|part| part.to_le_bytes()).collect()
        };
        let part = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | u64::from(*byte));
        (self.rule)(&bytes(first), &bytes(second)).chunks(8).map(part).collect()
    }
}
