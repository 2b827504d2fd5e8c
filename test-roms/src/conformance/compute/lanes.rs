//! Vectors of integers as the manual describes them (SDM vol. 2): the operands are byte strings of
//! one lane, 8 bytes in MMX and 16 in SSE and each half of AVX, of which an element is a part.

/// What an instruction makes of one lane of both operands.
pub(super) type Rule = fn(&[u8], &[u8]) -> Vec<u8>;

/// The elements of a lane, `width` bytes each, as signed numbers.
fn signed(lane: &[u8], width: usize) -> Vec<i128> {
    let top = 128 - 8 * width as u32;
    unsigned(lane, width).into_iter().map(|value| value << top >> top).collect()
}

/// As unsigned numbers.
fn unsigned(lane: &[u8], width: usize) -> Vec<i128> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, byte| n << 8 | i128::from(*byte));
    lane.chunks(width).map(number).collect()
}

/// The low `width` bytes of each number.
fn lane(width: usize, elements: impl IntoIterator<Item = i128>) -> Vec<u8> {
    elements.into_iter().flat_map(|element| element.to_le_bytes()[..width].to_vec()).collect()
}

/// `f` of each pair of signed elements.
fn each<const W: usize>(a: &[u8], b: &[u8], f: impl Fn(i128, i128) -> i128) -> Vec<u8> {
    lane(W, signed(a, W).into_iter().zip(signed(b, W)).map(|(a, b)| f(a, b)))
}

/// `f` of each pair of unsigned elements.
fn each_unsigned<const W: usize>(a: &[u8], b: &[u8], f: impl Fn(i128, i128) -> i128) -> Vec<u8> {
    lane(W, unsigned(a, W).into_iter().zip(unsigned(b, W)).map(|(a, b)| f(a, b)))
}

/// The nearest number that fits into `width` bytes, signed.
fn saturate(width: usize, value: i128) -> i128 {
    let limit = 1 << (8 * width - 1);
    value.clamp(-limit, limit - 1)
}

/// The same, unsigned.
fn saturate_unsigned(width: usize, value: i128) -> i128 {
    value.clamp(0, (1 << (8 * width)) - 1)
}

pub(super) fn add<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| a + b)
}
pub(super) fn sub<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| a - b)
}
pub(super) fn add_saturated<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| saturate(W, a + b))
}
pub(super) fn sub_saturated<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| saturate(W, a - b))
}
pub(super) fn add_unsigned<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, |a, b| saturate_unsigned(W, a + b))
}
pub(super) fn sub_unsigned<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, |a, b| saturate_unsigned(W, a - b))
}
pub(super) fn average<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, |a, b| (a + b + 1) >> 1)
}
pub(super) fn smallest<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, i128::min)
}
pub(super) fn largest<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, i128::max)
}
pub(super) fn smallest_unsigned<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, i128::min)
}
pub(super) fn largest_unsigned<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, i128::max)
}
pub(super) fn equal<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| -i128::from(a == b))
}
pub(super) fn greater<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| -i128::from(a > b))
}
pub(super) fn absolute<const W: usize>(_: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(b, b, |b, _| b.abs())
}
pub(super) fn sign<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| a * b.signum())
}
pub(super) fn and(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<1>(a, b, |a, b| a & b)
}
pub(super) fn and_not(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<1>(a, b, |a, b| !a & b)
}
pub(super) fn or(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<1>(a, b, |a, b| a | b)
}
pub(super) fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<1>(a, b, |a, b| a ^ b)
}

/// PMULLW, PMULLD.
pub(super) fn low_product<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<W>(a, b, |a, b| a * b)
}
/// PMULHW.
pub(super) fn high_product(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<2>(a, b, |a, b| (a * b) >> 16)
}
/// PMULHUW.
pub(super) fn high_product_unsigned(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<2>(a, b, |a, b| (a * b) >> 16)
}
/// PMULHRSW.
pub(super) fn rounded_product(a: &[u8], b: &[u8]) -> Vec<u8> {
    each::<2>(a, b, |a, b| (((a * b) >> 14) + 1) >> 1)
}
/// PMULDQ: of every second element.
pub(super) fn wide_product(a: &[u8], b: &[u8]) -> Vec<u8> {
    let [a, b] = [a, b].map(|lane| signed(lane, 4));
    lane(8, a.iter().zip(&b).step_by(2).map(|(a, b)| a * b))
}
/// PMULUDQ.
pub(super) fn wide_product_unsigned(a: &[u8], b: &[u8]) -> Vec<u8> {
    let [a, b] = [a, b].map(|lane| unsigned(lane, 4));
    lane(8, a.iter().zip(&b).step_by(2).map(|(a, b)| a * b))
}

/// `f` of each two neighbours.
fn neighbours(elements: &[i128], f: impl Fn(i128, i128) -> i128) -> Vec<i128> {
    elements.chunks(2).map(|pair| f(pair[0], pair[1])).collect()
}

/// PMADDWD: sums of two products.
pub(super) fn products_summed(a: &[u8], b: &[u8]) -> Vec<u8> {
    let products: Vec<i128> =
        signed(a, 2).into_iter().zip(signed(b, 2)).map(|(a, b)| a * b).collect();
    lane(4, neighbours(&products, |first, second| first + second))
}
/// PMADDUBSW: the first operand's bytes are unsigned, the second's signed.
pub(super) fn mixed_products_summed(a: &[u8], b: &[u8]) -> Vec<u8> {
    let products: Vec<i128> =
        unsigned(a, 1).into_iter().zip(signed(b, 1)).map(|(a, b)| a * b).collect();
    lane(2, neighbours(&products, |first, second| saturate(2, first + second)))
}
/// PSADBW: one sum for 8 bytes.
pub(super) fn differences_summed(a: &[u8], b: &[u8]) -> Vec<u8> {
    let differences: Vec<i128> =
        unsigned(a, 1).into_iter().zip(unsigned(b, 1)).map(|(a, b)| (a - b).abs()).collect();
    lane(8, differences.chunks(8).map(|chunk| chunk.iter().sum()))
}

/// PHADD and PHSUB: the first operand's results are the low half.
fn horizontal<const W: usize>(a: &[u8], b: &[u8], f: impl Fn(i128, i128) -> i128) -> Vec<u8> {
    let both = [a, b].map(|lane| neighbours(&signed(lane, W), &f));
    lane(W, both.into_iter().flatten())
}
pub(super) fn add_across<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    horizontal::<W>(a, b, |first, second| first + second)
}
pub(super) fn sub_across<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    horizontal::<W>(a, b, |first, second| first - second)
}
pub(super) fn add_across_saturated(a: &[u8], b: &[u8]) -> Vec<u8> {
    horizontal::<2>(a, b, |first, second| saturate(2, first + second))
}
pub(super) fn sub_across_saturated(a: &[u8], b: &[u8]) -> Vec<u8> {
    horizontal::<2>(a, b, |first, second| saturate(2, first - second))
}

/// PACKSS: elements of `W` bytes become half as wide, the first operand's in the low half.
pub(super) fn pack<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let both = [a, b].map(|lane| signed(lane, W));
    lane(W / 2, both.into_iter().flatten().map(|value| saturate(W / 2, value)))
}
/// PACKUS.
pub(super) fn pack_unsigned<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let both = [a, b].map(|lane| signed(lane, W));
    lane(W / 2, both.into_iter().flatten().map(|value| saturate_unsigned(W / 2, value)))
}
/// PUNPCKL: by turns, of the low halves.
pub(super) fn unpack_low<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let half = a.len() / 2;
    by_turns::<W>(&a[..half], &b[..half])
}
/// PUNPCKH.
pub(super) fn unpack_high<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let half = a.len() / 2;
    by_turns::<W>(&a[half..], &b[half..])
}
fn by_turns<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let pairs = a.chunks(W).zip(b.chunks(W));
    pairs.flat_map(|(a, b)| [a, b].concat()).collect()
}
/// PSHUFB.
pub(super) fn shuffle(a: &[u8], b: &[u8]) -> Vec<u8> {
    let pick = |n: &u8| if n & 0x80 != 0 { 0 } else { a[usize::from(*n) % a.len()] };
    b.iter().map(pick).collect()
}

/// The count of a shift: the low 64 bits of the second operand, or more than any element has.
fn count(b: &[u8]) -> u32 {
    unsigned(b, 8)[0].min(255) as u32
}
/// `value` shifted by a count that may be larger than the element.
fn shifted_left(width: usize, value: i128, count: i128) -> i128 {
    if count >= 8 * width as i128 { 0 } else { value << count }
}
fn shifted_right(width: usize, value: i128, count: i128) -> i128 {
    if count >= 8 * width as i128 { 0 } else { value >> count }
}
pub(super) fn shift_left<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let by = count(b).into();
    lane(W, unsigned(a, W).into_iter().map(|value| shifted_left(W, value, by)))
}
pub(super) fn shift_right<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let by = count(b).into();
    lane(W, unsigned(a, W).into_iter().map(|value| shifted_right(W, value, by)))
}
pub(super) fn shift_signed<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    let by = count(b).min(8 * W as u32 - 1);
    lane(W, signed(a, W).into_iter().map(|value| value >> by))
}
/// VPSLLV: each element by its own count.
pub(super) fn shift_each_left<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, |value, by| shifted_left(W, value, by))
}
pub(super) fn shift_each_right<const W: usize>(a: &[u8], b: &[u8]) -> Vec<u8> {
    each_unsigned::<W>(a, b, |value, by| shifted_right(W, value, by))
}
/// VPSRAVD.
pub(super) fn shift_each_signed(a: &[u8], b: &[u8]) -> Vec<u8> {
    let counts = unsigned(b, 4).into_iter().map(|by| by.min(31));
    lane(4, signed(a, 4).into_iter().zip(counts).map(|(value, by)| value >> by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_signed_or_not() {
        assert_eq!(signed(&[0xff, 0xff, 1, 0x80], 2), [-1, -0x7fff]);
        assert_eq!(unsigned(&[0xff, 0xff, 1, 0x80], 2), [0xffff, 0x8001]);
        assert_eq!(lane(2, [-2, 0x1_0003]), [0xfe, 0xff, 3, 0]);
    }

    /// Worked out by hand.
    #[test]
    fn known_answers() {
        let bytes = |text: u64| text.to_be_bytes().to_vec();
        let of = |rule: Rule, a, b| {
            let (mut a, mut b) = (bytes(a), bytes(b));
            a.reverse();
            b.reverse();
            rule(&a, &b).iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte))
        };
        let (a, b) = (0x8000_7fff_00ff_0180, 0x8000_0001_ff01_7f80);
        assert_eq!(of(add_saturated::<2>, a, b), 0x8000_7fff_0000_7fff);
        assert_eq!(of(pack_unsigned::<2>, a, b), 0x0001_00ff_00ff_ffff);
        assert_eq!(of(unpack_low::<1>, a, b), 0xff00_01ff_7f01_8080);
        assert_eq!(of(rounded_product, a, b), 0x8000_0001_fffe_017f);
        assert_eq!(of(differences_summed, a, b), 0x7f + 0xfe + 0xff + 0xfe + 0x7e);
        assert_eq!(of(shift_signed::<2>, a, 99), 0xffff_0000_0000_0000);
        assert_eq!(of(shuffle, a, 0x8000_0102_0304_0506), 0x0080_01ff_00ff_7f00);
    }
}
