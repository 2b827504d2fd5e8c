//! The comparison with the host's SSE.

use super::host::{self, Operands};
use super::*;

/// Random encodings weighted toward the edges of the format.
fn random32(random: &mut Random) -> u64 {
    let exponent = match random.below(8) {
        0 => 0,
        1 => 0xFF,
        2 => random.below(3),
        3 => 0xFC + random.below(3),
        4..7 => 0x7F + random.below(60) - 30,
        _ => random.below(0x100),
    };
    let fraction = if random.below(8) == 0 { 0 } else { random.significand() >> 41 };
    random.below(2) << 31 | exponent << 23 | fraction
}

fn random64(random: &mut Random) -> u64 {
    let exponent = match random.below(8) {
        0 => 0,
        1 => 0x7FF,
        2 => random.below(3),
        3 => 0x7FC + random.below(3),
        4..7 => 0x3FF + random.below(120) - 60,
        _ => random.below(0x800),
    };
    let fraction = if random.below(8) == 0 { 0 } else { random.significand() >> 12 };
    random.below(2) << 63 | exponent << 52 | fraction
}

/// All exceptions masked, flags clear; every rounding mode, DAZ and FTZ.
fn random_mxcsr(random: &mut Random) -> u32 {
    let ftz_daz = [0, 0, 0, 0x40, 0x8000, 0x8040][random.below(6) as usize];
    0x1F80 | (random.below(4) as u32) << 13 | ftz_daz
}

/// Runs `ours` and the host's instruction on many operands and compares bits and flags.
fn check(
    name: &str,
    operand: fn(&mut Random) -> u64,
    result_mask: u64,
    instruction: fn(Operands, u32) -> (u64, u32),
    ours: fn(Operands, &mut Env) -> u64,
) {
    let mut random = Random(name.len() as u64);
    for _ in 0..60_000 {
        let operands: Operands = std::array::from_fn(|_| operand(&mut random));
        let mxcsr = random_mxcsr(&mut random);
        let mut env = Env::from_mxcsr(mxcsr);
        let result = ours(operands, &mut env) & result_mask;
        let (expected, after) = instruction(operands, mxcsr);
        let expected = expected & result_mask;
        assert!(
            result == expected && u32::from(env.flags) == after & 0x3F,
            "{name} {operands:x?} mxcsr {mxcsr:#x}: {result:#x} flags {:#x}, \
             host {expected:#x} flags {:#x}",
            env.flags,
            after & 0x3F
        );
    }
}

const LOW32: u64 = 0xFFFF_FFFF;

fn f32_binary(op: fn(u32, u32, &mut Env) -> u32, o: Operands, env: &mut Env) -> u64 {
    op(o[0] as u32, o[1] as u32, env).into()
}

#[test]
fn binary32_arithmetic() {
    let r = random32;
    check("addss", r, LOW32, host::addss, |o, e| f32_binary(add::<F32>, o, e));
    check("subss", r, LOW32, host::subss, |o, e| f32_binary(sub::<F32>, o, e));
    check("mulss", r, LOW32, host::mulss, |o, e| f32_binary(mul::<F32>, o, e));
    check("divss", r, LOW32, host::divss, |o, e| f32_binary(div::<F32>, o, e));
    check("sqrtss", r, LOW32, host::sqrtss, |o, e| sqrt::<F32>(o[0] as u32, e).into());
}

#[test]
fn binary64_arithmetic() {
    let r = random64;
    check("addsd", r, !0, host::addsd, |o, e| add::<F64>(o[0], o[1], e));
    check("subsd", r, !0, host::subsd, |o, e| sub::<F64>(o[0], o[1], e));
    check("mulsd", r, !0, host::mulsd, |o, e| mul::<F64>(o[0], o[1], e));
    check("divsd", r, !0, host::divsd, |o, e| div::<F64>(o[0], o[1], e));
    check("sqrtsd", r, !0, host::sqrtsd, |o, e| sqrt::<F64>(o[0], e));
}

/// Random operands of which at most one is a NaN, as the three FMA forms differ in their order
/// of choice; and near-cancelling addends.
fn fma64_operand(random: &mut Random) -> u64 {
    loop {
        let bits = random64(random);
        if !F64::unpack(bits).is_nan() || random.below(16) == 0 {
            return bits;
        }
    }
}

#[test]
fn fused_multiply_add() {
    if !std::arch::is_x86_feature_detected!("fma") {
        return;
    }
    fn cancelling(mut o: Operands) -> Operands {
        if o[2] & 3 == 0 {
            let product = mul::<F64>(o[0], o[1], &mut Env::from_mxcsr(0x1F80));
            o[2] = product ^ 1 << 63;
        }
        if o.iter().filter(|&&x| F64::unpack(x).is_nan()).count() > 1 {
            o[1] = 0;
            o[2] = 0;
        }
        o
    }
    check(
        "fmasd",
        fma64_operand,
        !0,
        |o, csr| host::fmasd(cancelling(o), csr),
        |o, e| {
            let [a, b, c] = cancelling(o);
            fma::<F64>(a, b, c, e)
        },
    );
    fn finite32(random: &mut Random) -> u64 {
        loop {
            let bits = random32(random);
            if !F32::unpack(bits as u32).is_nan() {
                return bits;
            }
        }
    }
    check("fmass", finite32, LOW32, host::fmass, |o, e| {
        fma::<F32>(o[0] as u32, o[1] as u32, o[2] as u32, e).into()
    });
}

#[test]
fn conversions() {
    let (r, d) = (random32, random64);
    check("cvtss2sd", r, !0, host::cvtss2sd, |o, e| convert::<F32, F64>(o[0] as u32, e));
    check("cvtsd2ss", d, LOW32, host::cvtsd2ss, |o, e| convert::<F64, F32>(o[0], e).into());
    let integer = |r: &mut Random| r.significand() ^ r.below(2).wrapping_neg();
    check("cvtsi2ss", integer, LOW32, host::cvtsi2ss, |o, e| {
        from_int::<F32>(o[0] as i64, e).into()
    });
    check("cvtsi2sd", integer, !0, host::cvtsi2sd, |o, e| from_int::<F64>(o[0] as i64, e));
    check("cvtss2si32", r, LOW32, host::cvtss2si32, |o, e| {
        to_int::<F32, i32>(o[0] as u32, e.rounding, e) as u64
    });
    check("cvtss2si64", r, !0, host::cvtss2si64, |o, e| {
        to_int::<F32, i64>(o[0] as u32, e.rounding, e) as u64
    });
    check("cvtsd2si32", d, LOW32, host::cvtsd2si32, |o, e| {
        to_int::<F64, i32>(o[0], e.rounding, e) as u64
    });
    check("cvttsd2si64", d, !0, host::cvttsd2si64, |o, e| {
        to_int::<F64, i64>(o[0], Rounding::Zero, e) as u64
    });
}

#[test]
fn rounding_to_integral() {
    check("roundss", random32, LOW32, host::roundss, |o, e| {
        round_to_int::<F32>(o[0] as u32, e.rounding, true, e).into()
    });
    check("roundsd", random64, !0, host::roundsd_quiet, |o, e| {
        round_to_int::<F64>(o[0], e.rounding, false, e)
    });
}

#[test]
fn comparisons() {
    // ZF, PF and CF, as COMISS sets them.
    fn rflags(relation: Relation) -> u64 {
        match relation {
            Relation::Greater => 0,
            Relation::Less => 0x01,
            Relation::Equal => 0x40,
            Relation::Unordered => 0x45,
        }
    }
    const MASK: u64 = 0x45;
    type Compare32 = fn(u32, u32, &mut Env) -> Relation;
    fn narrow(op: Compare32, o: Operands, e: &mut Env) -> u64 {
        rflags(op(o[0] as u32, o[1] as u32, e))
    }
    check("comiss", random32, MASK, host::comiss, |o, e| narrow(compare::<F32>, o, e));
    check("ucomiss", random32, MASK, host::ucomiss, |o, e| narrow(compare_quiet::<F32>, o, e));
    let close = |r: &mut Random| random64(r) & !(0xFF << 52) & !0 << 51;
    check("comisd", close, MASK, host::comisd, |o, e| rflags(compare::<F64>(o[0], o[1], e)));
    check("ucomisd", random64, MASK, host::ucomisd, |o, e| {
        rflags(compare_quiet::<F64>(o[0], o[1], e))
    });
}
