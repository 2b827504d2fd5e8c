//! AVX, AVX2, FMA and F16C: VEX-encoded instructions on vectors.

use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, OpKind};

use super::complex;
use super::sse::strings;
use crate::backend::Handler;
use crate::semantics::avx::{
    compare as avx_compare, convert as narrow, fma, masked, moves, permute,
};
use crate::semantics::sse::{
    self, Vex, compare, convert, crypto, float, integer, masked as sse_masked, scalar, shifts,
    shuffle, state,
};
use crate::vector::VectorBackend;

/// The handler of a VEX-encoded vector instruction.
pub(super) fn select<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    if i.code().encoding() != EncodingKind::VEX {
        return None;
    }
    whole(i)
        .or_else(|| rearranging(i))
        .or_else(|| floats(i))
        .or_else(|| elements(i))
        .or_else(|| integer::select_vex(i))
        .or_else(|| integer::select_wide_vex(i))
        .or_else(|| shifts::select_vex(i))
        .or_else(|| crypto::select_vex(i))
        .or_else(|| shuffle::select_vex(i))
        .or_else(|| permute::select(i))
        .or_else(|| float::select_vex(i))
        .or_else(|| convert::select_vector_vex(i))
        .or_else(|| fma::select(i))
        .or_else(|| sse::moves::select_vex(i))
        .or_else(|| scalar::select_vex(i))
        .or_else(|| convert::select_scalar_vex(i))
        .or_else(|| compare::select_scalars(i))
        .or_else(|| strings::<B, Vex>(i))
}

/// Moves of whole registers and of their halves.
fn whole<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Mnemonic::*;
    let (load, store) = (i.op1_kind() == OpKind::Memory, i.op0_kind() == OpKind::Memory);
    Some(match i.mnemonic() {
        Vmovaps | Vmovapd | Vmovdqa | Vmovups | Vmovupd | Vmovdqu if !load && !store => {
            moves::copy::<B>
        }
        Vmovaps | Vmovapd | Vmovdqa | Vmovntdqa if load => moves::load_register::<B, true>,
        Vmovups | Vmovupd | Vmovdqu | Vlddqu if load => moves::load_register::<B, false>,
        Vmovaps | Vmovapd | Vmovdqa | Vmovntps | Vmovntpd | Vmovntdq => {
            moves::store_register::<B, true>
        }
        Vmovups | Vmovupd | Vmovdqu => moves::store_register::<B, false>,
        Vinsertf128 | Vinserti128 => moves::insert_half::<B>,
        Vextractf128 | Vextracti128 => moves::extract_half::<B>,
        Vperm2f128 | Vperm2i128 => moves::permute_halves::<B>,
        Vbroadcastf128 | Vbroadcasti128 => moves::broadcast::<B, 4>,
        Vbroadcastsd | Vpbroadcastq => moves::broadcast::<B, 3>,
        Vbroadcastss | Vpbroadcastd => moves::broadcast::<B, 2>,
        Vpbroadcastw => moves::broadcast::<B, 1>,
        Vpbroadcastb => moves::broadcast::<B, 0>,
        Vzeroupper => moves::zero::<B, false>,
        Vzeroall => moves::zero::<B, true>,
        Vldmxcsr => complex!(state::ldmxcsr),
        Vstmxcsr => complex!(state::stmxcsr),
        _ => return None,
    })
}

/// What moves lanes in ways of its own.
fn rearranging<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Code::*;
    let mem = i.op2_kind() == OpKind::Memory;
    Some(match i.code() {
        VEX_Vmovddup_ymm_ymmm256 => moves::duplicate::<B>,
        VEX_Vpermilps_xmm_xmm_xmmm128 | VEX_Vpermilps_ymm_ymm_ymmm256 => permute::singles_by::<B>,
        VEX_Vpermilpd_xmm_xmm_xmmm128 | VEX_Vpermilpd_ymm_ymm_ymmm256 => permute::doubles_by::<B>,
        VEX_Vpermd_ymm_ymm_ymmm256 | VEX_Vpermps_ymm_ymm_ymmm256 => permute::doublewords::<B>,
        VEX_Vpermq_ymm_ymmm256_imm8 | VEX_Vpermpd_ymm_ymmm256_imm8 => permute::quadwords::<B>,
        VEX_Vpblendvb_xmm_xmm_xmmm128_xmm | VEX_Vpblendvb_ymm_ymm_ymmm256_ymm => {
            permute::blend_variable::<B, 0>
        }
        VEX_Vblendvps_xmm_xmm_xmmm128_xmm | VEX_Vblendvps_ymm_ymm_ymmm256_ymm => {
            permute::blend_variable::<B, 2>
        }
        VEX_Vblendvpd_xmm_xmm_xmmm128_xmm | VEX_Vblendvpd_ymm_ymm_ymmm256_ymm => {
            permute::blend_variable::<B, 3>
        }
        VEX_Vinsertps_xmm_xmm_xmmm32_imm8 if mem => shuffle::insert_single::<B, Vex, true>,
        VEX_Vinsertps_xmm_xmm_xmmm32_imm8 => shuffle::insert_single::<B, Vex, false>,
        VEX_Vmovmskps_r32_ymm | VEX_Vmovmskps_r64_ymm => moves::mask::<B, 2>,
        VEX_Vmovmskpd_r32_ymm | VEX_Vmovmskpd_r64_ymm => moves::mask::<B, 3>,
        VEX_Vpmovmskb_r32_ymm | VEX_Vpmovmskb_r64_ymm => moves::mask::<B, 0>,
        _ => return None,
    })
}

/// Comparisons, and conversions to other widths.
fn floats<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    const SINGLES: u64 = 0x8000_0000_8000_0000;
    const DOUBLES: u64 = 0x8000_0000_0000_0000;
    use Mnemonic::*;
    let wide = i.op1_register().is_ymm() || i.memory_size().size() == 32;
    Some(match i.mnemonic() {
        Vdpps if i.op0_register().is_ymm() => float::dot_products_256::<B>,
        Vcmpss => avx_compare::compare::<B, 0>,
        Vcmpsd => avx_compare::compare::<B, 1>,
        Vcmpps => avx_compare::compare::<B, 2>,
        Vcmppd => avx_compare::compare::<B, 3>,
        Vptest => avx_compare::test::<B, { u64::MAX }>,
        Vtestps => avx_compare::test::<B, SINGLES>,
        Vtestpd => avx_compare::test::<B, DOUBLES>,
        Vcvtpd2ps if wide => narrow::narrow::<B, 0>,
        Vcvtpd2dq if wide => narrow::narrow::<B, 1>,
        Vcvttpd2dq if wide => narrow::narrow::<B, 2>,
        Vcvtph2ps => narrow::from_half::<B>,
        Vcvtps2ph if i.op0_kind() == OpKind::Memory => narrow::store_half::<B>,
        Vcvtps2ph => narrow::to_half::<B>,
        _ => return None,
    })
}

/// Accesses to single elements.
fn elements<B: VectorBackend>(i: &Instruction) -> Option<Handler<B>> {
    use Mnemonic::*;
    let store = i.op0_kind() == OpKind::Memory;
    Some(match i.mnemonic() {
        Vmaskmovps | Vpmaskmovd if store => complex!(masked::store::<false>),
        Vmaskmovps | Vpmaskmovd => complex!(masked::load::<false>),
        Vmaskmovpd | Vpmaskmovq if store => complex!(masked::store::<true>),
        Vmaskmovpd | Vpmaskmovq => complex!(masked::load::<true>),
        Vgatherdps | Vpgatherdd => complex!(masked::gather::<false, false>),
        Vgatherqps | Vpgatherqd => complex!(masked::gather::<false, true>),
        Vgatherdpd | Vpgatherdq => complex!(masked::gather::<true, false>),
        Vgatherqpd | Vpgatherqq => complex!(masked::gather::<true, true>),
        Vmaskmovdqu => complex!(sse_masked::store::<Vex>),
        _ => return None,
    })
}
