//! x87, SSE and AVX state, as an area of XSAVE's standard format (SDM vol. 1, 13.4).

use brolga_cpu::cpuid::{CpuModel, Feature};
use brolga_cpu::vcpu::{Vcpu, xcr0};
use brolga_cpu::x87::LastInstruction;
use kvm_bindings::kvm_xsave;

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XMM: usize = 160;
/// XSTATE_BV: the components that are not in their initial state.
const HEADER: usize = 512;
/// The upper halves of the YMM registers: CPUID.0Dh.2:EBX, the same on all processors.
const YMM_HIGH: usize = 576;
/// All bits of MXCSR that software may set, DAZ among them.
const ALL_OF_MXCSR: u32 = 0xffff;

type Area = [u8; 4096];

fn put<const N: usize>(area: &mut Area, at: usize, bytes: [u8; N]) {
    area[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(area: &Area, at: usize) -> [u8; N] {
    std::array::from_fn(|i| area[at + i])
}

pub(super) fn to_kvm(state: &Vcpu, model: &CpuModel) -> kvm_xsave {
    let mut area = [0; 4096];
    let mut legacy = [0; 512];
    state.x87.fxsave(true, &mut legacy);
    put(&mut area, 0, legacy);
    put(&mut area, MXCSR, state.mxcsr.to_le_bytes());
    put(&mut area, MXCSR_MASK, ALL_OF_MXCSR.to_le_bytes());
    let mut components = xcr0::X87 | xcr0::SSE;
    for (n, value) in state.xmm.iter().enumerate() {
        put(&mut area, XMM + 16 * n, value.to_le_bytes());
    }
    if model.has(Feature::Avx) {
        components |= xcr0::AVX;
        for (n, value) in state.ymm_high.iter().enumerate() {
            put(&mut area, YMM_HIGH + 16 * n, value.to_le_bytes());
        }
    }
    put(&mut area, HEADER, components.to_le_bytes());
    let mut xsave = kvm_xsave::default();
    let (words, _) = area.as_chunks::<4>();
    for (place, word) in xsave.region.iter_mut().zip(words) {
        *place = u32::from_le_bytes(*word);
    }
    xsave
}

pub(super) fn from_kvm(state: &mut Vcpu, model: &CpuModel, xsave: &kvm_xsave) {
    let mut area = [0; 4096];
    for (n, word) in xsave.region.iter().enumerate() {
        put(&mut area, 4 * n, word.to_le_bytes());
    }
    // A component in its initial state is not in the area.
    let present = u64::from_le_bytes(get(&area, HEADER));
    if present & xcr0::X87 != 0 {
        let last = state.x87.last;
        state.x87.fxrstor(true, &get(&area, 0));
        keep_selectors(&mut state.x87.last, last);
    } else {
        state.x87 = Default::default();
    }
    state.mxcsr = u32::from_le_bytes(get(&area, MXCSR));
    let vectors =
        |component, at: usize| -> [u128; 16] {
            let there = present & component != 0;
            std::array::from_fn(|n| {
                if there { u128::from_le_bytes(get(&area, at + 16 * n)) } else { 0 }
            })
        };
    state.xmm = vectors(xcr0::SSE, XMM);
    if model.has(Feature::Avx) {
        state.ymm_high = vectors(xcr0::AVX, YMM_HIGH);
    }
}

/// The area has 64-bit pointers and no selectors; those of an instruction that is still the last
/// are known.
fn keep_selectors(new: &mut LastInstruction, old: LastInstruction) {
    if (new.ip, new.dp, new.opcode) == (old.ip, old.dp, old.opcode) {
        *new = old;
    }
}
