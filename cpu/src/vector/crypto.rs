//! AES, SHA, carry-less multiplication and arithmetic in GF(2^8): what the instructions compute,
//! where the host has none for it. Operands are named as in SDM vol. 2.

/// What these instructions compute from 128-bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crypto {
    /// A round of encryption of the state `a` with the round key `b` (FIPS 197).
    AesEnc,
    /// The last round, without MixColumns.
    AesEncLast,
    /// A round of the equivalent inverse cipher.
    AesDec,
    /// Its last round.
    AesDecLast,
    /// InvMixColumns of `b`.
    AesImc,
    /// AESKEYGENASSIST of `b` with the round constant 0.
    AesKeygen,
    /// The carry-less product of the low quadwords.
    Clmul,
    /// Four rounds of SHA-1 (FIPS 180-4) with function 0-3.
    Sha1Rounds(u8),
    /// The state variable E after four rounds, added to message words.
    Sha1NextE,
    /// The first half of the message schedule.
    Sha1Msg1,
    /// The second half.
    Sha1Msg2,
    /// The first half of SHA-256's message schedule.
    Sha256Msg1,
    /// The second half.
    Sha256Msg2,
    /// Products of bytes modulo x^8 + x^4 + x^3 + x + 1.
    GfMul,
    /// Each byte of `a` times the matrix of bits in its quadword of `b`.
    GfAffine,
    /// As [`Crypto::GfAffine`], of the bytes' inverses.
    GfAffineInverse,
}

/// Whether the host has the instruction for `op`.
#[cfg(target_arch = "x86_64")]
pub fn on_host(op: Crypto) -> bool {
    match op {
        Crypto::AesEnc
        | Crypto::AesEncLast
        | Crypto::AesDec
        | Crypto::AesDecLast
        | Crypto::AesImc
        | Crypto::AesKeygen => std::arch::is_x86_feature_detected!("aes"),
        Crypto::Clmul => std::arch::is_x86_feature_detected!("pclmulqdq"),
        Crypto::Sha1Rounds(_)
        | Crypto::Sha1NextE
        | Crypto::Sha1Msg1
        | Crypto::Sha1Msg2
        | Crypto::Sha256Msg1
        | Crypto::Sha256Msg2 => std::arch::is_x86_feature_detected!("sha"),
        Crypto::GfMul | Crypto::GfAffine | Crypto::GfAffineInverse => {
            std::arch::is_x86_feature_detected!("gfni")
        }
    }
}

/// Whether the host has the instruction for `op`.
#[cfg(not(target_arch = "x86_64"))]
pub fn on_host(_: Crypto) -> bool {
    false
}

/// The product in GF(2^8) with AES's polynomial.
const fn gf_mul(a: u8, b: u8) -> u8 {
    let (mut a, mut product, mut bit) = (a, 0, 0);
    while bit < 8 {
        if b >> bit & 1 != 0 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        bit += 1;
    }
    product
}

/// The inverses in GF(2^8); 0 for 0.
const INVERSE: [u8; 256] = {
    let mut table = [0; 256];
    // The powers of the generator 3 and of its inverse, F6h, meet every element.
    let (mut v, mut inverse, mut n) = (1u8, 1u8, 0);
    while n < 255 {
        table[v as usize] = inverse;
        v = gf_mul(v, 3);
        inverse = gf_mul(inverse, 0xf6);
        n += 1;
    }
    table
};

/// AES's S-box (FIPS 197, 5.1.1).
const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        let v = INVERSE[n];
        table[n] =
            v ^ v.rotate_left(1) ^ v.rotate_left(2) ^ v.rotate_left(3) ^ v.rotate_left(4) ^ 0x63;
        n += 1;
    }
    table
};

const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 256 {
        table[SBOX[n] as usize] = n as u8;
        n += 1;
    }
    table
};

/// Substitutes the state's bytes, after ShiftRows; rows move by `step` columns times their number.
fn substitute(state: u128, sbox: &[u8; 256], step: usize) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (column, row) = (i / 4, i % 4);
        sbox[usize::from(bytes[4 * ((column + step * row) % 4) + row])]
    }))
}

/// Multiplies each column by the circulant matrix of `row` (FIPS 197, 5.1.3).
fn mix_columns(state: u128, row: [u8; 4]) -> u128 {
    let bytes = state.to_le_bytes();
    u128::from_le_bytes(std::array::from_fn(|i| {
        (0..4).fold(0, |sum, n| sum ^ gf_mul(row[(n + 4 - i % 4) % 4], bytes[i / 4 * 4 + n]))
    }))
}

const MIX: [u8; 4] = [2, 3, 1, 1];
const INVERSE_MIX: [u8; 4] = [14, 11, 13, 9];

fn key_assist(v: u128) -> u128 {
    let words = substitute_words(v);
    let [_, x1, _, x3] = words;
    join([x1, x1.rotate_right(8), x3, x3.rotate_right(8)])
}

fn substitute_words(v: u128) -> [u32; 4] {
    split(v).map(|w| u32::from_le_bytes(w.to_le_bytes().map(|b| SBOX[usize::from(b)])))
}

/// Doublewords, the lowest first.
fn split(v: u128) -> [u32; 4] {
    std::array::from_fn(|n| (v >> (32 * n)) as u32)
}

fn join(words: [u32; 4]) -> u128 {
    words.into_iter().rev().fold(0, |v, w| v << 32 | u128::from(w))
}

fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|n| b >> n & 1 != 0).fold(0, |sum, n| sum ^ u128::from(a) << n)
}

/// SHA1RNDS4.
fn sha1_rounds(state: u128, words: u128, function: u8) -> u128 {
    const CONSTANTS: [u32; 4] = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6];
    let [mut d, mut c, mut b, mut a] = split(state);
    // The first word brings E with it.
    let mut e = 0u32;
    for word in split(words).into_iter().rev() {
        let f = match function {
            0 => b & c ^ !b & d,
            2 => b & c ^ b & d ^ c & d,
            _ => b ^ c ^ d,
        };
        let next = f
            .wrapping_add(a.rotate_left(5))
            .wrapping_add(word)
            .wrapping_add(e)
            .wrapping_add(CONSTANTS[usize::from(function)]);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    join([d, c, b, a])
}

fn sha1_msg1(a: u128, b: u128) -> u128 {
    let ([w3, w2, w1, w0], [_, _, w5, w4]) = (split(a), split(b));
    join([w5 ^ w3, w4 ^ w2, w3 ^ w1, w2 ^ w0])
}

fn sha1_msg2(a: u128, b: u128) -> u128 {
    let ([a3, a2, a1, a0], [w15, w14, w13, _]) = (split(a), split(b));
    let w16 = (a0 ^ w13).rotate_left(1);
    let w17 = (a1 ^ w14).rotate_left(1);
    let w18 = (a2 ^ w15).rotate_left(1);
    let w19 = (a3 ^ w16).rotate_left(1);
    join([w19, w18, w17, w16])
}

fn sha256_msg1(a: u128, b: u128) -> u128 {
    let ([w0, w1, w2, w3], [w4, ..]) = (split(a), split(b));
    let sigma = |w: u32| w.rotate_right(7) ^ w.rotate_right(18) ^ w >> 3;
    join([(w0, w1), (w1, w2), (w2, w3), (w3, w4)].map(|(w, next)| w.wrapping_add(sigma(next))))
}

fn sha256_msg2(a: u128, b: u128) -> u128 {
    let ([a0, a1, a2, a3], [_, _, w14, w15]) = (split(a), split(b));
    let sigma = |w: u32| w.rotate_right(17) ^ w.rotate_right(19) ^ w >> 10;
    let (w16, w17) = (a0.wrapping_add(sigma(w14)), a1.wrapping_add(sigma(w15)));
    join([w16, w17, a2.wrapping_add(sigma(w16)), a3.wrapping_add(sigma(w17))])
}

/// SHA256RNDS2: two rounds from the state C, D, G, H in `cdgh` and A, B, E, F in `abef`, with the
/// two low doublewords of `keys`.
pub fn sha256_rounds(cdgh: u128, abef: u128, keys: u128) -> u128 {
    let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b, mut a]) = (split(cdgh), split(abef));
    for key in split(keys).into_iter().take(2) {
        let choice = e & f ^ !e & g;
        let majority = a & b ^ a & c ^ b & c;
        let sum0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let sum1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let t1 = choice.wrapping_add(sum1).wrapping_add(key).wrapping_add(h);
        let next = t1.wrapping_add(majority).wrapping_add(sum0);
        (h, g, f, e) = (g, f, e, t1.wrapping_add(d));
        (d, c, b, a) = (c, b, a, next);
    }
    join([f, e, b, a])
}

/// Each byte of `a`, after `map`, times the matrix in its quadword of `b`: bit `n` of the product is
/// the parity of the byte and row 7 - `n`.
fn affine(a: u128, b: u128, map: impl Fn(u8) -> u8) -> u128 {
    let (bytes, matrices) = (a.to_le_bytes(), b.to_le_bytes());
    u128::from_le_bytes(std::array::from_fn(|i| {
        let (v, rows) = (map(bytes[i]), &matrices[i / 8 * 8..][..8]);
        (0..8).fold(0, |sum, n| sum | ((rows[7 - n] & v).count_ones() as u8 & 1) << n)
    }))
}

/// Does what `op` says.
pub fn apply(op: Crypto, a: u128, b: u128) -> u128 {
    match op {
        Crypto::AesEnc => mix_columns(substitute(a, &SBOX, 1), MIX) ^ b,
        Crypto::AesEncLast => substitute(a, &SBOX, 1) ^ b,
        Crypto::AesDec => mix_columns(substitute(a, &INVERSE_SBOX, 3), INVERSE_MIX) ^ b,
        Crypto::AesDecLast => substitute(a, &INVERSE_SBOX, 3) ^ b,
        Crypto::AesImc => mix_columns(b, INVERSE_MIX),
        Crypto::AesKeygen => key_assist(b),
        Crypto::Clmul => carryless(a as u64, b as u64),
        Crypto::Sha1Rounds(function) => sha1_rounds(a, b, function & 3),
        Crypto::Sha1NextE => {
            let e = split(a)[3].rotate_left(30);
            let [w0, w1, w2, w3] = split(b);
            join([w0, w1, w2, w3.wrapping_add(e)])
        }
        Crypto::Sha1Msg1 => sha1_msg1(a, b),
        Crypto::Sha1Msg2 => sha1_msg2(a, b),
        Crypto::Sha256Msg1 => sha256_msg1(a, b),
        Crypto::Sha256Msg2 => sha256_msg2(a, b),
        Crypto::GfMul => {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            u128::from_le_bytes(std::array::from_fn(|i| gf_mul(a[i], b[i])))
        }
        Crypto::GfAffine => affine(a, b, |v| v),
        Crypto::GfAffineInverse => affine(a, b, |v| INVERSE[usize::from(v)]),
    }
}

/// PDEP: the low bits of `v`, spread to where `mask` has ones.
pub fn deposit(v: u64, mask: u64) -> u64 {
    let (mut v, mut mask, mut r) = (v, mask, 0);
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if v & 1 != 0 {
            r |= lowest;
        }
        v >>= 1;
        mask ^= lowest;
    }
    r
}

/// PEXT: the bits of `v` where `mask` has ones, side by side.
pub fn extract(v: u64, mask: u64) -> u64 {
    let (mut mask, mut r, mut n) = (mask, 0, 0);
    while mask != 0 {
        r |= (v >> mask.trailing_zeros() & 1) << n;
        n += 1;
        mask &= mask - 1;
    }
    r
}
