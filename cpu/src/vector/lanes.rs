//! Integer lanes of a `u128`, as the interpreter computes them. Where the `wide` crate has the
//! operation it becomes one host vector instruction; the rest are short loops.

use std::array::from_fn;

use bytemuck::{AnyBitPattern, NoUninit, cast};
use wide::{i8x16, i16x8, i32x4, i64x2, u8x16, u16x8, u32x4, u64x2};

use super::{Lane, Pattern, Shift, X2, pattern};

/// Lane-wise with a vector type or an array of lanes. The order of the lanes, which follows the
/// host's endianness, does not matter here.
#[inline(always)]
fn zip<T: NoUninit + AnyBitPattern>(a: u128, b: u128, f: impl FnOnce(T, T) -> T) -> u128 {
    cast(f(cast(a), cast(b)))
}

/// Lane-wise over arrays.
#[inline(always)]
fn each<T, const N: usize>(a: u128, b: u128, f: impl Fn(T, T) -> T) -> u128
where
    T: Copy,
    [T; N]: NoUninit + AnyBitPattern,
{
    zip::<[T; N]>(a, b, |a, b| from_fn(|i| f(a[i], b[i])))
}

/// See [`X2`]. Combinations that no instruction has are unreachable by construction: their
/// result is `a`.
#[inline(always)]
pub(crate) fn x2(op: X2, lane: Lane, a: u128, b: u128) -> u128 {
    match op {
        X2::And => a & b,
        X2::AndNot => !a & b,
        X2::Or => a | b,
        X2::Xor => a ^ b,
        _ => match lane {
            Lane::B => bytes(op, a, b),
            Lane::W => words(op, a, b),
            Lane::D => doublewords(op, a, b),
            Lane::Q => quadwords(op, a, b),
        },
    }
}

#[inline(always)]
fn bytes(op: X2, a: u128, b: u128) -> u128 {
    match op {
        X2::Add => zip::<u8x16>(a, b, |a, b| a + b),
        X2::Sub => zip::<u8x16>(a, b, |a, b| a - b),
        X2::CmpEq => zip::<i8x16>(a, b, |a, b| a.simd_eq(b)),
        X2::CmpGtS => zip::<i8x16>(a, b, |a, b| a.simd_gt(b)),
        X2::AddSatS => zip::<i8x16>(a, b, i8x16::saturating_add),
        X2::AddSatU => zip::<u8x16>(a, b, u8x16::saturating_add),
        X2::SubSatS => zip::<i8x16>(a, b, i8x16::saturating_sub),
        X2::SubSatU => zip::<u8x16>(a, b, u8x16::saturating_sub),
        X2::MinS => zip::<i8x16>(a, b, i8x16::min),
        X2::MinU => zip::<u8x16>(a, b, u8x16::min),
        X2::MaxS => zip::<i8x16>(a, b, i8x16::max),
        X2::MaxU => zip::<u8x16>(a, b, u8x16::max),
        X2::AvgU => each::<u8, 16>(a, b, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8),
        _ => a,
    }
}

#[inline(always)]
fn words(op: X2, a: u128, b: u128) -> u128 {
    match op {
        X2::Add => zip::<u16x8>(a, b, |a, b| a + b),
        X2::Sub => zip::<u16x8>(a, b, |a, b| a - b),
        X2::CmpEq => zip::<i16x8>(a, b, |a, b| a.simd_eq(b)),
        X2::CmpGtS => zip::<i16x8>(a, b, |a, b| a.simd_gt(b)),
        X2::MulLo => zip::<i16x8>(a, b, |a, b| a * b),
        X2::MulHiS => zip::<i16x8>(a, b, i16x8::mul_keep_high),
        X2::MulHiU => zip::<u16x8>(a, b, u16x8::mul_keep_high),
        X2::AddSatS => zip::<i16x8>(a, b, i16x8::saturating_add),
        X2::AddSatU => zip::<u16x8>(a, b, u16x8::saturating_add),
        X2::SubSatS => zip::<i16x8>(a, b, i16x8::saturating_sub),
        X2::SubSatU => zip::<u16x8>(a, b, u16x8::saturating_sub),
        X2::MinS => zip::<i16x8>(a, b, i16x8::min),
        X2::MinU => zip::<u16x8>(a, b, u16x8::min),
        X2::MaxS => zip::<i16x8>(a, b, i16x8::max),
        X2::MaxU => zip::<u16x8>(a, b, u16x8::max),
        X2::AvgU => each::<u16, 8>(a, b, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16),
        _ => a,
    }
}

#[inline(always)]
fn doublewords(op: X2, a: u128, b: u128) -> u128 {
    match op {
        X2::Add => zip::<u32x4>(a, b, |a, b| a + b),
        X2::Sub => zip::<u32x4>(a, b, |a, b| a - b),
        X2::CmpEq => zip::<i32x4>(a, b, |a, b| a.simd_eq(b)),
        X2::CmpGtS => zip::<i32x4>(a, b, |a, b| a.simd_gt(b)),
        X2::MulLo => zip::<u32x4>(a, b, |a, b| a * b),
        X2::MulEvenS => each::<u32, 4>(a, b, |a, b| {
            i32::from(a as i16).wrapping_mul(i32::from(b as i16)) as u32
        }),
        X2::MulEvenU => each::<u32, 4>(a, b, |a, b| (a & 0xffff).wrapping_mul(b & 0xffff)),
        X2::MinS => zip::<i32x4>(a, b, i32x4::min),
        X2::MinU => zip::<u32x4>(a, b, u32x4::min),
        X2::MaxS => zip::<i32x4>(a, b, i32x4::max),
        X2::MaxU => zip::<u32x4>(a, b, u32x4::max),
        _ => a,
    }
}

#[inline(always)]
fn quadwords(op: X2, a: u128, b: u128) -> u128 {
    match op {
        X2::Add => zip::<u64x2>(a, b, |a, b| a + b),
        X2::Sub => zip::<u64x2>(a, b, |a, b| a - b),
        X2::CmpEq => zip::<i64x2>(a, b, |a, b| a.simd_eq(b)),
        X2::CmpGtS => zip::<i64x2>(a, b, |a, b| a.simd_gt(b)),
        X2::MulEvenS => each::<u64, 2>(a, b, |a, b| {
            i64::from(a as i32).wrapping_mul(i64::from(b as i32)) as u64
        }),
        X2::MulEvenU => {
            each::<u64, 2>(a, b, |a, b| u64::from(a as u32).wrapping_mul(u64::from(b as u32)))
        }
        _ => a,
    }
}

/// Absolute values of bytes, words or doublewords; the most negative value stays.
#[inline(always)]
pub(crate) fn abs(lane: Lane, a: u128) -> u128 {
    match lane {
        Lane::B => cast(cast::<_, i8x16>(a).abs()),
        Lane::W => cast(cast::<_, i16x8>(a).abs()),
        Lane::D => cast(cast::<_, i32x4>(a).abs()),
        Lane::Q => cast(cast::<_, i64x2>(a).abs()),
    }
}

/// Shifts all lanes; a count of the lane's width or more shifts everything out.
#[inline(always)]
pub(crate) fn shift(op: Shift, lane: Lane, a: u128, count: u64) -> u128 {
    let width = u64::from(lane.bits());
    if count >= width && op != Shift::Sar {
        return 0;
    }
    let n = count.min(width - 1) as u32;
    match (op, lane) {
        (Shift::Shl, Lane::B) => cast(cast::<_, u8x16>(a).unbounded_shl_scalar(n)),
        (Shift::Shr, Lane::B) => cast(cast::<_, u8x16>(a).unbounded_shr_scalar(n)),
        (Shift::Sar, Lane::B) => cast(cast::<_, i8x16>(a).unbounded_shr_scalar(n)),
        (Shift::Shl, Lane::W) => cast(cast::<_, u16x8>(a) << n),
        (Shift::Shr, Lane::W) => cast(cast::<_, u16x8>(a) >> n),
        (Shift::Sar, Lane::W) => cast(cast::<_, i16x8>(a) >> n),
        (Shift::Shl, Lane::D) => cast(cast::<_, u32x4>(a) << n),
        (Shift::Shr, Lane::D) => cast(cast::<_, u32x4>(a) >> n),
        (Shift::Sar, Lane::D) => cast(cast::<_, i32x4>(a) >> n),
        (Shift::Shl, Lane::Q) => cast(cast::<_, u64x2>(a) << n),
        (Shift::Shr, Lane::Q) => cast(cast::<_, u64x2>(a) >> n),
        (Shift::Sar, Lane::Q) => cast(cast::<_, i64x2>(a) >> n),
    }
}

/// Shifts each doubleword or quadword by its own count.
#[inline(always)]
pub(crate) fn shift_each(op: Shift, lane: Lane, a: u128, counts: u128) -> u128 {
    let doublewords = |f: fn(u32, u32) -> u32| each::<u32, 4>(a, counts, f);
    let quadwords =
        |f: fn(u64, u32) -> u64| each::<u64, 2>(a, counts, |a, n| f(a, n.min(64) as u32));
    match (op, lane) {
        (Shift::Shl, Lane::Q) => quadwords(u64::unbounded_shl),
        (Shift::Shr, Lane::Q) => quadwords(u64::unbounded_shr),
        (Shift::Shl, _) => doublewords(u32::unbounded_shl),
        (Shift::Shr, _) => doublewords(u32::unbounded_shr),
        (Shift::Sar, _) => doublewords(|a, n| (a as i32).unbounded_shr(n) as u32),
    }
}

/// Bits `[n * lane, (n + 1) * lane)`.
#[inline(always)]
pub(crate) fn extract(lane: Lane, a: u128, n: u8) -> u64 {
    let bits = lane.bits();
    let v = (a >> ((u32::from(n) * bits) & 127)) as u64;
    if lane == Lane::Q { v } else { v & ((1 << bits) - 1) }
}

/// `a` with lane `n` replaced by the low bits of `v`.
#[inline(always)]
pub(crate) fn insert(lane: Lane, a: u128, n: u8, v: u64) -> u128 {
    let at = (u32::from(n) * lane.bits()) & 127;
    let mask = (u128::from(u64::MAX) >> (64 - lane.bits())) << at;
    a & !mask | u128::from(v) << at & mask
}

/// The top bit of each lane.
#[inline(always)]
pub(crate) fn movemask(lane: Lane, a: u128) -> u64 {
    match lane {
        Lane::B => u64::from(cast::<_, u8x16>(a.to_le()).to_bitmask()),
        _ => (0..16 / lane.bytes() as u32)
            .fold(0, |m, i| m | ((a >> ((i + 1) * lane.bits() - 1)) as u64 & 1) << i),
    }
}

/// A two-input byte shuffle.
#[inline(always)]
pub(crate) fn shuffle(a: u128, b: u128, pattern: Pattern) -> u128 {
    let table: [u8; 32] = {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        from_fn(|i| if i < 16 { a[i] } else { b[i - 16] })
    };
    u128::from_le_bytes(pattern.map(|p| table[usize::from(p & 31)]))
}

/// As [`shuffle`], of whole doublewords.
#[inline(always)]
pub(crate) fn shuffle_d(a: u128, b: u128, lanes: [u8; 4]) -> u128 {
    lanes.iter().rev().fold(0, |r, &n| {
        let from = if n & 4 == 0 { a } else { b };
        r << 32 | u128::from((from >> (32 * u32::from(n & 3))) as u32)
    })
}

/// PSHUFB's byte shuffle.
#[inline(always)]
pub(crate) fn shuffle_by(a: u128, by: u128) -> u128 {
    let a = a.to_le_bytes();
    let take = |i: u8| if i & 0x80 != 0 { 0 } else { a[usize::from(i & 15)] };
    u128::from_le_bytes(by.to_le_bytes().map(take))
}

const fn alternating(lane: Lane, high: bool) -> Pattern {
    let half = 8 / lane.bytes() as u8;
    let first = if high { half } else { 0 };
    let mut lanes = [0; 16];
    let mut i = 0;
    while i < half {
        lanes[2 * i as usize] = first + i;
        lanes[2 * i as usize + 1] = first + i + 2 * half;
        i += 1;
    }
    pattern(lane, &lanes)
}

/// Lanes of one half of `a` and `b`, alternating.
#[inline(always)]
pub(crate) fn interleave(lane: Lane, high: bool, a: u128, b: u128) -> u128 {
    let bytes =
        |f: fn(u8x16, u8x16) -> u8x16| u128::from_le(cast(f(cast(a.to_le()), cast(b.to_le()))));
    match (lane, high) {
        (Lane::B, false) => bytes(u8x16::unpack_low),
        (Lane::B, true) => bytes(u8x16::unpack_high),
        (Lane::W, _) => shuffle(a, b, alternating(Lane::W, high)),
        (Lane::D, false) => shuffle_d(a, b, [0, 4, 1, 5]),
        (Lane::D, true) => shuffle_d(a, b, [2, 6, 3, 7]),
        (Lane::Q, false) => a & u128::from(u64::MAX) | b << 64,
        (Lane::Q, true) => a >> 64 | b >> 64 << 64,
    }
}

/// Narrows with saturation: words to bytes, doublewords to words.
#[inline(always)]
pub(crate) fn pack(from: Lane, signed: bool, a: u128, b: u128) -> u128 {
    let (half, lanes) = (from.bits() / 2, 128 / from.bits());
    let (low, high) =
        if signed { (-1 << (half - 1), (1 << (half - 1)) - 1) } else { (0, (1 << half) - 1) };
    let mask = (1u128 << half) - 1;
    let narrow = |x: u128| {
        (0..lanes).fold(0, |r, i| {
            let lane = extract(from, x, i as u8);
            let lane = (lane << (64 - from.bits())) as i64 >> (64 - from.bits());
            r | (lane.clamp(low, high) as u128 & mask) << (i * half)
        })
    };
    narrow(a) | narrow(b) << 64
}

/// CRC-32C (polynomial 11EDC6F41h, reflected) over the bytes of `data`.
pub(crate) fn crc32c(crc: u32, data: u64, bytes: u32) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = crc >> 1 ^ if crc & 1 != 0 { POLYNOMIAL } else { 0 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    (0..bytes)
        .fold(crc, |crc, i| crc >> 8 ^ TABLE[usize::from((crc ^ (data >> (8 * i)) as u32) as u8)])
}
