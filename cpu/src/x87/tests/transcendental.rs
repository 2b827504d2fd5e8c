//! The portable transcendental functions against the host's.

use super::super::transcendental::{Answer, Transcendental};
use super::super::{host, portable};
use super::random_f80;
use crate::softfloat::tests::Random;
use crate::softfloat::{Class, Env, F80, flag};
use Transcendental::{Atan, Cos, Sin, SinCos, Tan, TwoToXMinus1, YLog2X, YLog2XPlus1};

/// The distance of two numbers in units in the last place.
fn ulps(a: F80, b: F80) -> u128 {
    let key = |x: F80| {
        let magnitude = i128::from(x.se & 0x7FFF) << 63 | i128::from(x.sig & !(1 << 63));
        if x.sign() { -magnitude } else { magnitude }
    };
    (key(a) - key(b)).unsigned_abs()
}

/// Whether both answers are the same datum, or finite numbers of one sign next to each other: of the
/// smallest denormal, truncated, AMD's FSIN makes zero and Intel's the number itself.
fn agree(a: F80, b: F80) -> bool {
    let finite = |x: F80| matches!(x.class(), Class::Zero | Class::Subnormal | Class::Normal);
    a == b || finite(a) && finite(b) && a.sign() == b.sign() && ulps(a, b) <= 1
}

/// A result without what its exponent is moved by when an underflow is not masked.
fn whole(x: F80, flags: u8, control: u16) -> F80 {
    const MOVED: u16 = 0x6000;
    let underflow = flags & flag::UNDERFLOW != 0 && control & u16::from(flag::UNDERFLOW) == 0;
    let is_moved = underflow && x.se & 0x7fff >= MOVED;
    if is_moved { F80 { se: x.se - MOVED, ..x } } else { x }
}

fn run_both(op: Transcendental, x: F80, y: F80, control: u16) -> [(Answer, u8); 2] {
    let mut ours = Env::from_x87_control(control);
    let answer = portable::transcendental(op, x, y, control, &mut ours);
    let mut theirs = Env::from_x87_control(control);
    let expected = host::transcendental(op, x, y, control, &mut theirs);
    [(answer, ours.flags), (expected, theirs.flags)]
}

fn check(op: Transcendental, operand: fn(&mut Random) -> F80) {
    let mut random = Random(op as u64);
    for _ in 0..20_000 {
        let (x, y) = (operand(&mut random), random_f80(&mut random));
        let unmasked = (random.below(4) as u16) << 3;
        let control = (0x37F | (random.below(4) as u16) << 10) & !unmasked;
        let [(ours, flags), (host, host_flags)] = run_both(op, x, y, control);
        let same = agree(ours.value, host.value)
            && agree(ours.pushed, host.pushed)
            && ours.out_of_range == host.out_of_range
            && flags == host_flags;
        let [ours_whole, host_whole] = [(&ours, flags), (&host, host_flags)]
            .map(|(of, flags)| whole(of.value, flags, control));
        // What is the smallest normal number there may be just below it here: Intel's FSIN of that
        // number.
        let at_the_border = (flags ^ host_flags) == flag::UNDERFLOW
            && [ours_whole, host_whole].iter().any(|x| x.se & 0x7fff == 1 && x.sig == 1 << 63)
            && ulps(ours_whole, host_whole) <= 1;
        assert!(
            same || at_the_border,
            "{op:?} {x:x?} {y:x?} control {control:#x}\nours {ours:x?} flags {flags:#x}\nhost {host:x?} \
             flags {host_flags:#x}"
        );
    }
}

/// A number below one in magnitude, or now and then what is no normal number.
fn within_one(random: &mut Random) -> F80 {
    if random.below(8) == 0 {
        let x = random_f80(random);
        if x.class() != Class::Normal {
            return x;
        }
    }
    let exponent = 0x3FFE - random.below(70) as u16;
    F80::new((random.below(2) << 15) as u16 | exponent, random.significand() | 1 << 63)
}

#[test]
fn two_to_x_minus_1() {
    check(TwoToXMinus1, within_one);
    for sign in [0, 0x8000] {
        let one = F80::new(0x3FFF | sign, 1 << 63);
        let [ours, host] = run_both(TwoToXMinus1, one, one, 0x37F);
        assert_eq!(ours, host);
    }
}

#[test]
fn logarithm() {
    check(YLog2X, random_f80);
}

#[test]
fn logarithm_near_one() {
    check(YLog2XPlus1, |r| {
        let x = within_one(r);
        if x.class() == Class::Normal { F80 { se: x.se - 2, ..x } } else { x }
    });
}

#[test]
fn arctangent() {
    check(Atan, random_f80);
}

#[test]
fn sine_and_cosine() {
    for op in [Sin, Cos, SinCos] {
        check(op, random_f80);
    }
}

#[test]
fn tangent() {
    check(Tan, random_f80);
}
