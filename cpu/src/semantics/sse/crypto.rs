//! AES, carry-less multiplication, SHA and GFNI.

use super::operations;
use crate::vector::{Crypto, Lane, VectorBackend, X2};

operations! {
    /// Instructions on XMM registers.
    select;
    |b, i, d, s|
    M16 {
        Aesenc => b.crypto(Crypto::AesEnc, d, s),
        Aesenclast => b.crypto(Crypto::AesEncLast, d, s),
        Aesdec => b.crypto(Crypto::AesDec, d, s),
        Aesdeclast => b.crypto(Crypto::AesDecLast, d, s),
        Aesimc => b.crypto(Crypto::AesImc, s, s),
        Aeskeygenassist => key_assist(b, i.imm, s),
        Pclmulqdq => multiply_quadwords(b, i.imm, d, s),
        Sha1rnds4 => b.crypto(Crypto::Sha1Rounds(i.imm as u8 & 3), d, s),
        Sha1nexte => b.crypto(Crypto::Sha1NextE, d, s),
        Sha1msg1 => b.crypto(Crypto::Sha1Msg1, d, s),
        Sha1msg2 => b.crypto(Crypto::Sha1Msg2, d, s),
        Sha256msg1 => b.crypto(Crypto::Sha256Msg1, d, s),
        Sha256msg2 => b.crypto(Crypto::Sha256Msg2, d, s),
        Sha256rnds2 => {
            let keys = b.xmm(0);
            b.sha256_rounds(d, s, keys)
        },
        Gf2p8mulb => b.crypto(Crypto::GfMul, d, s),
        Gf2p8affineqb => affine(b, Crypto::GfAffine, i.imm, d, s),
        Gf2p8affineinvqb => affine(b, Crypto::GfAffineInverse, i.imm, d, s),
    }
}

/// AESKEYGENASSIST: the round constant goes into the rotated words, doublewords 1 and 3.
#[inline(always)]
pub(crate) fn key_assist<B: VectorBackend>(b: &mut B, imm: u64, s: B::X) -> B::X {
    let words = b.crypto(Crypto::AesKeygen, s, s);
    let constant = u128::from(imm as u8);
    let constant = b.const_x(constant << 32 | constant << 96);
    b.x2(X2::Xor, Lane::D, words, constant)
}

/// PCLMULQDQ: bits 0 and 4 of the immediate choose the quadwords.
#[inline(always)]
pub(crate) fn multiply_quadwords<B: VectorBackend>(b: &mut B, imm: u64, d: B::X, s: B::X) -> B::X {
    let d = if imm & 1 == 0 { d } else { b.interleave(Lane::Q, true, d, d) };
    let s = if imm & 16 == 0 { s } else { b.interleave(Lane::Q, true, s, s) };
    b.crypto(Crypto::Clmul, d, s)
}

/// GF2P8AFFINEQB and GF2P8AFFINEINVQB: the immediate is added to each byte.
#[inline(always)]
pub(crate) fn affine<B: VectorBackend>(b: &mut B, op: Crypto, imm: u64, d: B::X, s: B::X) -> B::X {
    let product = b.crypto(op, d, s);
    let constant = b.const_x(u128::from_ne_bytes([imm as u8; 16]));
    b.x2(X2::Xor, Lane::Q, product, constant)
}
