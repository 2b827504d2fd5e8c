//! x87 arithmetic, conversions and comparisons: results and status words of edges in all directions
//! of rounding and at all precisions, with all exceptions masked and with each unmasked.

use iced_x86::code_asm::*;

use super::exact::{DE, IE, OE, Operation, PE, Rounding, UE, ZE};
use super::extended::{
    C0, C1, C2, C3, Control, Extended, INDEFINITE, Left, arithmetic, compare, control, examine,
    load_float, round_to_integer, store_float, store_integer,
};
use super::float::{DOUBLE, Format, SINGLE};
use crate::conformance::features::FPU;
use crate::conformance::kit::{self, CASE, Kit, OUTCOME, SPARE};
use crate::conformance::{Kind, Rom, exception};
use crate::rom::{Emit, emit};

const MF: u8 = 16;
/// CR0.
const MP: u32 = 1 << 1;
const NE: u32 = 1 << 5;
/// All exceptions masked, all bits of precision.
const MASKED: u16 = 0x037f;
/// The status word: the stack fault, that an exception is not masked, twice, and the field TOP.
const SF: u64 = 1 << 6;
const ES: u64 = 1 << 7;
const BUSY: u64 = 1 << 15;
const TOP: u32 = 11;
const CODES: u64 = C0 | C1 | C2 | C3;
/// What memory holds that an instruction may store to.
const FILL: u32 = 0x5a5a_5a5a;
const FILLED: Extended = Extended(FILL as u16, (FILL as u64) << 32 | FILL as u64);
/// Where ST(0) is stored, or an instruction stores to; and the status word.
const VALUE: u32 = SPARE;
const STATUS: u32 = SPARE + 12;
/// Bytes of a pair of operands in the ROM.
const PAIR: usize = 32;

const SOURCE: &str = "SDM vol. 1 4.8, 4.9, 8.1 to 8.5";

/// Zeros, ones, numbers next to them, the least and largest, denormals, pseudo-denormals, infinities,
/// NaNs, and what has been no number since the 387.
const VALUES: [Extended; 24] = [
    Extended(0, 0),
    Extended(0x8000, 0),
    Extended(0x3fff, 0x8000_0000_0000_0000),
    Extended(0xbfff, 0x8000_0000_0000_0001),
    Extended(0x3ffe, 0xffff_ffff_ffff_ffff),
    Extended(0x4000, 0xc90f_daa2_2168_c235),
    Extended(0xc000, 0xc90f_da80_0000_0000),
    Extended(0x3fbf, 0x8000_0000_0000_0000),
    Extended(0x403e, 0x8000_0000_0000_0003),
    Extended(0x401e, 0xffff_ffff_7fff_ffff),
    Extended(0x7ffe, 0xffff_ffff_ffff_ffff),
    Extended(0xfffe, 0xffff_ff80_0000_0000),
    Extended(1, 0x8000_0000_0000_0000),
    Extended(0x8001, 0xffff_ffff_ffff_ffff),
    Extended(0, 0x0000_0000_0000_0001),
    Extended(0x8000, 0x7fff_ffff_ffff_ffff),
    Extended(0, 0x8000_0000_0000_0001),
    Extended(0x7fff, 0x8000_0000_0000_0000),
    Extended(0xffff, 0x8000_0000_0000_0000),
    Extended(0x7fff, 0xc123_4567_89ab_cdef),
    Extended(0xffff, 0x8765_4321_0fed_cba9),
    Extended(0x4000, 0x4000_0000_0000_0000),
    Extended(0x7fff, 0x4000_0000_0000_0001),
    Extended(0x3f80, 0xffff_ff7f_ffff_ffff),
];

/// Singles, and doubles: what FLD makes of them.
const SINGLES: [u64; 8] =
    [0x8000_0000, 1, 0x807f_ffff, 0x0080_0000, 0x3f80_0001, 0xff80_0000, 0x7fc1_2345, 0xff81_2345];
const DOUBLES: [u64; 8] = [
    1 << 63,
    1,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x3ff0_0000_0000_0001,
    0xfff0_0000_0000_0000,
    0x7ff8_1234_5678_9abc,
    0xfff0_1234_5678_9abc,
];

/// Exponents and significands of FLDL2T, FLDL2E, FLDPI, FLDLG2 and FLDLN2, rounded to zero, and
/// whether what is lost is more than a half.
const CONSTANTS: [(&str, u8, Extended, bool); 5] = [
    ("FLDL2T", 0xe9, Extended(0x4000, 0xd49a_784b_cd1b_8afe), false),
    ("FLDL2E", 0xea, Extended(0x3fff, 0xb8aa_3b29_5c17_f0bb), true),
    ("FLDPI", 0xeb, Extended(0x4000, 0xc90f_daa2_2168_c234), true),
    ("FLDLG2", 0xec, Extended(0x3ffd, 0x9a20_9a84_fbcf_f798), true),
    ("FLDLN2", 0xed, Extended(0x3ffe, 0xb172_17f7_d1cf_79ab), true),
];

/// What an instruction leaves.
#[derive(Clone, Copy)]
struct After {
    /// The status word without TOP, ES and B, and which of these bits count.
    status: [u64; 2],
    /// How many registers it has pushed.
    pushed: i32,
    /// ST(0), or the memory that it may store to.
    value: Extended,
}

/// Where an instruction leaves its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Register,
    Memory,
}

/// An instruction: its code, with EBX pointing to its first operand.
struct Subject<'a> {
    name: &'a str,
    code: &'a [u8],
    place: Place,
}

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    kit::rom("x87", "x87 arithmetic, conversions and comparisons", &[FPU], |a| {
        emit!(a; mov(eax, cr0); or(eax, MP | NE); mov(cr0, eax););
        arithmetics(a)?;
        stores(a)?;
        loads(a)?;
        comparisons(a)?;
        stack_faults(a)
    })
}

/// All directions of rounding at all precisions; then each exception unmasked.
fn controls() -> Vec<u16> {
    const PRECISIONS: [u16; 3] = [0, 2, 3];
    let masked = PRECISIONS.map(|pc| MASKED & !0x300 | pc << 8);
    let directions = masked.into_iter().flat_map(|word| (0..4).map(move |rc| word | rc << 10));
    directions.chain(unmasked()).collect()
}

/// Each exception unmasked, and all of them when rounding up.
fn unmasked() -> impl Iterator<Item = u16> {
    (0..6).map(|n| MASKED & !(1 << n)).chain([MASKED & !0x3f | 2 << 10])
}

/// All directions of rounding.
fn directions() -> Vec<u16> {
    (0..4).map(|rc| MASKED | rc << 10).collect()
}

/// Each value with some others.
fn pairs() -> Vec<[Extended; 2]> {
    let with = |n: usize, step| [VALUES[n], VALUES[(n + step) % VALUES.len()]];
    (0..VALUES.len()).flat_map(|n| [0, 5, 11].map(|step| with(n, step))).collect()
}

/// Each value, for instructions of one operand.
fn singles() -> Vec<[Extended; 2]> {
    VALUES.map(|v| [v, INDEFINITE]).to_vec()
}

/// What an instruction of ST(0) leaves there, or nothing.
fn in_register(before: Extended, left: Left<Extended>) -> After {
    let status = [left.status, !(C0 | C2 | C3)];
    After { status, pushed: 0, value: left.result.unwrap_or(before) }
}

fn arithmetics(a: &mut Kit<'_, '_>) -> Emit {
    use Operation::{Add, Div, Mul, Sub};
    let operations = [
        ("FADD", 0xc1, Add, false),
        ("FMUL", 0xc9, Mul, false),
        ("FSUB", 0xe1, Sub, false),
        ("FSUBR", 0xe9, Sub, true),
        ("FDIV", 0xf1, Div, false),
        ("FDIVR", 0xf9, Div, true),
    ];
    for (name, modrm, op, reversed) in operations {
        let subject = Subject { name, code: &[0xd8, modrm], place: Place::Register };
        compute(a, &subject, &pairs(), &controls(), |[x, y], c| {
            let [first, second] = if reversed { [y, x] } else { [x, y] };
            in_register(x, arithmetic(op, first, second, c))
        })?;
    }
    let root = Subject { name: "FSQRT", code: &[0xd9, 0xfa], place: Place::Register };
    compute(a, &root, &singles(), &controls(), |[x, _], c| {
        in_register(x, arithmetic(Operation::Sqrt, x, x, c))
    })?;
    let rounding = Subject { name: "FRNDINT", code: &[0xd9, 0xfc], place: Place::Register };
    compute(a, &rounding, &singles(), &controls(), |[x, _], c| {
        in_register(x, round_to_integer(x, c))
    })
}

/// What is stored of ST(0).
type StoreRule = fn(Extended, &Control) -> Left<u64>;

/// FST, FIST and FISTP: names, opcode and ModRM, bits that are stored, how much is pushed.
const STORES: [(&str, [u8; 2], u32, i32, StoreRule); 5] = [
    ("FST of a single", [0xd9, 0x15], 32, 0, |v, c| store_float(v, SINGLE, c)),
    ("FST of a double", [0xdd, 0x15], 64, 0, |v, c| store_float(v, DOUBLE, c)),
    ("FIST of 16 bits", [0xdf, 0x15], 16, 0, |v, c| store_integer(v, 16, c)),
    ("FIST of 32 bits", [0xdb, 0x15], 32, 0, |v, c| store_integer(v, 32, c)),
    ("FISTP of 64 bits", [0xdf, 0x3d], 64, -1, |v, c| store_integer(v, 64, c)),
];

fn stores(a: &mut Kit<'_, '_>) -> Emit {
    let controls: Vec<u16> = directions().into_iter().chain(unmasked()).collect();
    for (name, opcode, bits, pushed, rule) in STORES {
        let code = [&opcode[..], &VALUE.to_le_bytes()].concat();
        let subject = Subject { name, code: &code, place: Place::Memory };
        compute(a, &subject, &singles(), &controls, |[x, _], c| {
            let left = rule(x, c);
            let Some(stored) = left.result else {
                // Whether what is not stored would be inexact is left open.
                let open = C0 | C1 | C2 | C3 | PE;
                return After { status: [left.status, !open], pushed: 0, value: FILLED };
            };
            let kept = FILLED.1 & u64::MAX.checked_shl(bits).unwrap_or(0);
            let value = Extended(FILLED.0, kept | stored);
            After { status: [left.status, !(C0 | C2 | C3)], pushed, value }
        })?;
    }
    Ok(())
}

/// FLD from memory, and the constants.
fn loads(a: &mut Kit<'_, '_>) -> Emit {
    let formats: [(&str, u8, Format, [u64; 8]); 2] =
        [("FLD of a single", 0xd9, SINGLE, SINGLES), ("FLD of a double", 0xdd, DOUBLE, DOUBLES)];
    for (name, opcode, format, values) in formats {
        let subject = Subject { name, code: &[opcode, 0x03], place: Place::Register };
        let operands = values.map(|bits| [Extended(0, bits), INDEFINITE]);
        compute(a, &subject, &operands, &directions(), |[x, _], c| {
            let left = load_float(x.1, format, c);
            After { pushed: 1, ..in_register(x, left) }
        })?;
    }
    for (name, opcode, truncated, nearest_up) in CONSTANTS {
        let subject = Subject { name, code: &[0xd9, opcode], place: Place::Register };
        compute(a, &subject, &singles()[..1], &directions(), |_, c| {
            let up = match c.rounding {
                Rounding::Nearest => nearest_up,
                Rounding::Up => true,
                Rounding::Down | Rounding::Zero => false,
            };
            let value = Extended(truncated.0, truncated.1 + u64::from(up));
            // No exception: the manual says nothing of C1 then.
            After { status: [0, !CODES], pushed: 1, value }
        })?;
    }
    Ok(())
}

fn comparisons(a: &mut Kit<'_, '_>) -> Emit {
    let some = [MASKED, MASKED & !(IE as u16), MASKED & !(DE as u16)];
    let comparisons: [(&str, [u8; 2], bool); 2] =
        [("FCOM", [0xd8, 0xd1], false), ("FUCOM", [0xdd, 0xe1], true)];
    for (name, code, unordered) in comparisons {
        let subject = Subject { name, code: &code, place: Place::Register };
        compute(a, &subject, &pairs(), &some, |[x, y], c| {
            let status = compare(x, y, unordered);
            // An exception that is not masked leaves the codes open.
            let open = if status & c.unmasked != 0 { CODES } else { 0 };
            After { status: [status, !open], pushed: 0, value: x }
        })?;
    }
    let examining = Subject { name: "FXAM", code: &[0xd9, 0xe5], place: Place::Register };
    compute(a, &examining, &singles(), &[MASKED], |[x, _], _| After {
        status: [examine(x), !0],
        pushed: 0,
        value: x,
    })
}

/// Instructions on registers that are empty, or are not (SDM vol. 1, 8.5.1.1).
fn stack_faults(a: &mut Kit<'_, '_>) -> Emit {
    let indefinite = |status, pushed| After {
        status: [IE | SF | status, !(C0 | C2 | C3)],
        pushed,
        value: INDEFINITE,
    };
    let unordered = After { status: [IE | SF | C3 | C2 | C0, !0], pushed: 0, value: ONE };
    // Most begin with FFREE of what shall be empty.
    let faults: [(&str, &[u8], After); 6] = [
        ("FADD with ST(0) empty", &[0xdd, 0xc0, 0xd8, 0xc1], indefinite(0, 0)),
        ("FADD with ST(1) empty", &[0xdd, 0xc1, 0xd8, 0xc1], indefinite(0, 0)),
        ("FXCH with ST(1) empty", &[0xdd, 0xc1, 0xd9, 0xc9], indefinite(0, 0)),
        ("FCHS with ST(0) empty", &[0xdd, 0xc0, 0xd9, 0xe0], indefinite(0, 0)),
        ("FCOM with ST(1) empty", &[0xdd, 0xc1, 0xd8, 0xd1], unordered),
        ("FLD on a full stack", &FULL, indefinite(C1, 7)),
    ];
    for (name, code, after) in faults {
        let subject = Subject { name, code, place: Place::Register };
        compute(a, &subject, &[[ONE, ONE]], &[MASKED], |_, _| after)?;
    }
    Ok(())
}

const ONE: Extended = Extended(0x3fff, 1 << 63);
/// FLD1 seven times, onto a stack of two.
const FULL: [u8; 14] = {
    let mut code = [0xd9; 14];
    let mut n = 1;
    while n < code.len() {
        code[n] = 0xe8;
        n += 2;
    }
    code
};

/// Executes an instruction on each pair, in ST(0) and ST(1), under each control word, and reports
/// the exception, status word and value that it leaves.
fn compute(
    a: &mut Kit<'_, '_>,
    subject: &Subject<'_>,
    pairs: &[[Extended; 2]],
    controls: &[u16],
    rule: impl Fn([Extended; 2], &Control) -> After,
) -> Emit {
    for pair in pairs {
        for &word in controls {
            note(a, subject.name, *pair, word, &rule(*pair, &control(word)));
        }
    }
    let operands = pairs.iter().flat_map(|[x, y]| {
        let mut bytes = [0; PAIR];
        // The significand first: an instruction may take it for a number of 64 bits.
        for (at, v) in [(0, x), (10, y)] {
            bytes[at..at + 8].copy_from_slice(&v.1.to_le_bytes());
            bytes[at + 8..at + 10].copy_from_slice(&v.0.to_le_bytes());
        }
        bytes
    });
    let operands = a.constant(&operands.collect::<Vec<u8>>());
    let words: Vec<u8> = controls.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (words, masked) = (a.constant(&words), a.constant(&MASKED.to_le_bytes()));
    let again = a.fresh("compute");
    emit!(a; mov(dword_ptr(CASE), 0); at(&again););
    a.attempt(|a| {
        emit!(a;
            mov(eax, dword_ptr(CASE));
            xor(edx, edx);
            mov(ecx, controls.len() as u32);
            div(ecx);
            imul_3(ebx, eax, PAIR as i32);
            add(ebx, operands);
            mov(dword_ptr(VALUE), FILL);
            mov(dword_ptr(VALUE + 4), FILL);
            mov(word_ptr(VALUE + 8), FILL as u16 as u32);
            fninit();
            fld(tbyte_ptr(ebx + 10));
            fld(tbyte_ptr(ebx));
            fldcw(word_ptr(edx * 2 + words));
        );
        a.db(subject.code)?;
        a.wait()
    })?;
    emit!(a;
        mov(eax, dword_ptr(OUTCOME));
        call -> "report";
        fnstsw(word_ptr(STATUS));
        fnclex();
        fldcw(word_ptr(masked));
    );
    if subject.place == Place::Register {
        a.fstp(tbyte_ptr(VALUE))?;
    }
    emit!(a;
        movzx(eax, word_ptr(STATUS));
        call -> "report";
        movzx(eax, word_ptr(VALUE + 8));
        call -> "report";
        mov(eax, dword_ptr(VALUE));
        call -> "report";
        mov(eax, dword_ptr(VALUE + 4));
        call -> "report";
        inc(dword_ptr(CASE));
        cmp(dword_ptr(CASE), (pairs.len() * controls.len()) as u32);
        jb -> &again;
    );
    Ok(())
}

fn note(a: &mut Kit<'_, '_>, name: &str, [x, y]: [Extended; 2], word: u16, after: &After) {
    let show = |v: Extended| format!("{:04x}:{:016x}", v.0, v.1);
    let case = format!("{name} of {}, {}, control word {word:#x}", show(x), show(y));
    let [status, defined] = after.status;
    let pending = status & control(word).unmasked & (IE | DE | ZE | OE | UE | PE) != 0;
    let outcome = if pending { exception(MF, 0) } else { 0 };
    let top = (6 - after.pushed) as u64 & 7;
    let status = status | top << TOP | if pending { ES | BUSY } else { 0 };
    let Extended(exponent, significand) = after.value;
    let [low, high] = [significand & 0xffff_ffff, significand >> 32];
    let number = Kind::Number;
    a.note(format!("{case}: exception"), SOURCE, [outcome.into(), u64::MAX], Kind::Outcome);
    a.note(format!("{case}: status word"), SOURCE, [status, defined & 0xffff], number);
    a.note(format!("{case}: sign and exponent"), SOURCE, [exponent.into(), 0xffff], number);
    a.note(format!("{case}: significand, low"), SOURCE, [low, u64::MAX], number);
    a.note(format!("{case}: significand, high"), SOURCE, [high, u64::MAX], number);
}
