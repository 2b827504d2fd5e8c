//! Random states that a vCPU may have: moved to KVM and back, they are the same.

use anyhow::{Context, Result, ensure};
use brolga_cpu::cpuid::{CpuModel, Feature};
use brolga_cpu::flags::LazyFlags;
use brolga_cpu::vcpu::{RIP, Segment, Shadow, TableReg, Vcpu, attr, cr0, cr4, efer, rflags, xcr0};
use brolga_machine::accel::Accelerator;
use brolga_machine::kvm::Host;
use fastrand::Rng;

const RAM: u64 = 1 << 20;

/// The modes that states are made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    Virtual86,
    Protected,
    Legacy,
    Pae,
    Compatible,
    Long,
}

const MODES: [Mode; 7] = [
    Mode::Real,
    Mode::Virtual86,
    Mode::Protected,
    Mode::Legacy,
    Mode::Pae,
    Mode::Compatible,
    Mode::Long,
];

/// Moves `count` random states to KVM and back.
pub fn check(count: u64) -> Result<()> {
    let host = Host::open()?;
    let mut engine = super::engine(&host, RAM)?;
    // The first entry may set the time-stamp counter.
    engine.round_trip()?;
    for seed in 0..count {
        let core = engine.core_mut();
        let state = state(&mut Rng::with_seed(seed), &core.model.clone());
        core.vcpu = state.clone();
        core.mode_changed();
        match engine.round_trip() {
            // docs/kvm.md: kvm_pvm knows neither.
            Err(error) if error.to_string().contains("paging outside long mode") => continue,
            Err(error) if error.to_string().contains("virtual-8086 mode") => continue,
            moved => moved.with_context(|| format!("seed {seed}: KVM refuses {state:#x?}"))?,
        }
        let back = &engine.core().vcpu;
        ensure!(*back == state, "seed {seed}: {}", differences(&state, back));
    }
    Ok(())
}

/// The lines in which two states differ.
fn differences(a: &Vcpu, b: &Vcpu) -> String {
    let [a, b] = [a, b].map(|state| format!("{state:#x?}"));
    let lines = a.lines().zip(b.lines()).enumerate().filter(|(_, (a, b))| a != b);
    lines.fold(String::new(), |text, (n, (a, b))| format!("{text}\n  line {n}: {a} -> {b}"))
}

/// A random state of a processor.
fn state(rng: &mut Rng, model: &CpuModel) -> Vcpu {
    let mode = MODES[rng.usize(..MODES.len())];
    let long = matches!(mode, Mode::Long | Mode::Compatible);
    let mut state = Vcpu::new(model.signature());
    let wide = |rng: &mut Rng| if long { rng.u64(..) } else { rng.u32(..).into() };
    for n in 0..16 {
        let upper = n < 8 || long;
        state.regs[n] = if upper { wide(rng) } else { 0 };
    }
    state.regs[RIP as usize] = match mode {
        Mode::Long => canonical(rng),
        Mode::Real | Mode::Virtual86 => rng.u16(..).into(),
        _ => rng.u32(..).into(),
    };
    state.flags = LazyFlags::from_rflags(rng.u64(..));
    let system = rflags::TF | rflags::IF | rflags::DF | rflags::IOPL | rflags::NT | rflags::RF;
    let other = rflags::AC | rflags::VIF | rflags::VIP | rflags::ID;
    state.eflags = rng.u64(..) & (system | other) | rflags::FIXED;
    state.cpl = match mode {
        Mode::Real => 0,
        Mode::Virtual86 => 3,
        _ => rng.u8(..4),
    };
    if mode == Mode::Virtual86 {
        state.eflags |= rflags::VM;
    }
    segments(rng, &mut state, mode);
    control(rng, &mut state, mode, model);
    floating_point(rng, &mut state, model);
    state.shadow = [Shadow::None, Shadow::Sti, Shadow::MovSs][rng.usize(..3)];
    if state.eflags & rflags::IF == 0 && state.shadow == Shadow::Sti {
        state.shadow = Shadow::None;
    }
    state.nmi_blocked = rng.bool();
    if rng.u8(..8) == 0 {
        state.pending_db = [0x4000, 1, 0x4002][rng.usize(..3)];
    }
    state
}

fn canonical(rng: &mut Rng) -> u64 {
    (rng.u64(..) as i64 >> rng.u8(16..40)) as u64
}

fn segments(rng: &mut Rng, state: &mut Vcpu, mode: Mode) {
    const DATA: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED;
    let ring = u32::from(state.cpl) << 5;
    for n in 0..6 {
        let is_code = n == 1;
        let selector = rng.u16(..);
        state.segs[n] = match mode {
            Mode::Real => Segment::real(selector, DATA, 0xffff),
            Mode::Virtual86 => Segment::real(selector, DATA | 3 << 5, 0xffff),
            _ if !is_code && n != 2 && rng.u8(..4) == 0 => {
                Segment { selector: rng.u16(..4), attr: attr::UNUSABLE, limit: 0, base: 0 }
            }
            _ => {
                let long = if is_code && mode == Mode::Long { attr::L } else { attr::DB };
                let kind = if is_code { attr::CODE } else { 0 };
                let free = rng.u32(..) & 1 << 12;
                Segment {
                    selector: selector & !3 | u16::from(state.cpl),
                    attr: DATA | ring | long | kind | attr::G | free,
                    limit: rng.u32(..) | 0xfff,
                    base: if mode == Mode::Long && n < 4 { 0 } else { rng.u32(..).into() },
                }
            }
        };
    }
    if mode == Mode::Long {
        for n in [4, 5] {
            state.segs[n].base = canonical(rng);
        }
    }
    let long = matches!(mode, Mode::Long | Mode::Compatible);
    let base = |rng: &mut Rng| if long { canonical(rng) } else { rng.u32(..).into() };
    state.gdtr = TableReg { base: base(rng), limit: rng.u16(..) };
    state.idtr = TableReg { base: base(rng), limit: rng.u16(..) };
    let busy_tss = attr::P | 11;
    state.tr = Segment { selector: 8, attr: busy_tss, limit: 0x67, base: base(rng) };
    state.ldtr = match rng.bool() {
        true => {
            Segment { selector: 16, attr: attr::P | 2, limit: rng.u16(..).into(), base: base(rng) }
        }
        false => Segment { selector: 0, attr: attr::UNUSABLE, limit: 0, base: 0 },
    };
}

fn control(rng: &mut Rng, state: &mut Vcpu, mode: Mode, model: &CpuModel) {
    let sys = &mut state.sys;
    let optional = cr0::MP | cr0::TS | cr0::WP | cr0::AM;
    sys.cr0 = rng.u64(..) & optional | cr0::ET | cr0::NE;
    if mode != Mode::Real {
        sys.cr0 |= cr0::PE;
    }
    sys.cr2 = rng.u64(..);
    sys.cr4 =
        rng.u64(..) & (cr4::VME | cr4::TSD | cr4::DE | cr4::PGE | cr4::OSFXSR | cr4::OSXMMEXCPT);
    sys.cr3 = 0x1000 * rng.u64(..RAM >> 12);
    match mode {
        Mode::Legacy => sys.cr0 |= cr0::PG,
        Mode::Pae => {
            sys.cr0 |= cr0::PG;
            sys.cr4 |= cr4::PAE;
            sys.pdptes =
                std::array::from_fn(|_| (0x1000 * rng.u64(..RAM >> 12)) | u64::from(rng.bool()));
        }
        Mode::Compatible | Mode::Long => {
            sys.cr0 |= cr0::PG;
            sys.cr4 |= cr4::PAE;
            sys.efer = efer::LME | efer::LMA;
        }
        _ => {}
    }
    sys.efer |= rng.u64(..) & (efer::SCE | efer::NXE);
    sys.dr = std::array::from_fn(|_| rng.u32(..).into());
    sys.dr6 = 0xffff_0ff0 | rng.u64(..) & 0xe00f;
    sys.dr7 = 0x400 | rng.u64(..) & 0x3ff;
    sys.star = rng.u64(..);
    sys.lstar = canonical(rng);
    sys.cstar = canonical(rng);
    sys.sfmask = rng.u32(..).into();
    sys.kernel_gs_base = canonical(rng);
    sys.sysenter_cs = rng.u16(..).into();
    sys.sysenter_esp = canonical(rng);
    sys.sysenter_eip = canonical(rng);
    // What KVM does not hold stays where it is.
    sys.pat = rng.u64(..);
    sys.mtrr_def_type = rng.u64(..);
    sys.prng = rng.u64(..);
    if model.has(Feature::Rdtscp) {
        sys.tsc_aux = rng.u32(..).into();
    }
    if model.has(Feature::Avx) {
        sys.xcr0 = xcr0::X87 | xcr0::SSE | xcr0::AVX;
        sys.cr4 |= cr4::OSXSAVE;
    }
}

fn floating_point(rng: &mut Rng, state: &mut Vcpu, model: &CpuModel) {
    let mut area = [0; 512];
    rng.fill(&mut area);
    state.x87.fxrstor(true, &area);
    // The pointers' selectors have no place in KVM's format; those of the last instruction stay.
    state.x87.last.cs = rng.u16(..);
    state.x87.last.ds = rng.u16(..);
    state.mxcsr = rng.u32(..) & 0xffff;
    state.xmm = std::array::from_fn(|_| rng.u128(..));
    if model.has(Feature::Avx) {
        state.ymm_high = std::array::from_fn(|_| rng.u128(..));
    }
}
