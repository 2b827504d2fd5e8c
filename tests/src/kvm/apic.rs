//! Random local APICs: moved to KVM's and back, they are the same.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use brolga_cpu::bus::Bus;
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::rflags;
use brolga_machine::accel::Accelerator;
use brolga_machine::board::{BoardBus, BoardConfig, Chipset};
use brolga_machine::clock::{Clock, ClockKind};
use brolga_machine::kvm::{Engine, Host};
use brolga_mmu::{GuestPhys, Width};
use fastrand::Rng;
use serde_json::{Value, json};

const RAM: u64 = 1 << 20;
const LAPIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;
const APIC_BASE: u32 = 0x1b;
const X2APIC: u64 = 1 << 10;

const SVR: u64 = 0xf0;
const ICR: u64 = 0x300;
const LVT: u64 = 0x320;
const TIMER_INITIAL: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;

/// How far a timer may be from where it was when it is back: its clock is the host's at KVM, and
/// stands still here.
const NEAR_TICKS: u64 = 500_000_000;

/// Moves `count` random local APICs to KVM and back.
pub fn check(count: u64) -> Result<()> {
    let host = Host::open()?;
    for seed in 0..count {
        let rng = &mut Rng::with_seed(seed);
        let chips = Arc::new(Mutex::new(Chipset::new(BoardConfig {
            clock: Clock::new(ClockKind::Virtual),
            unix_seconds: 0,
            physical_bits: CpuModel::default().phys_bits(),
            lapic_timer_hz: brolga_cpu::cpuid::CRYSTAL_HZ.into(),
            stop_text: None,
            taps: Vec::new(),
        })));
        let mut core = super::core(&host, RAM)?;
        let mut bus = BoardBus::new(chips.clone(), core.mem.map.clone(), core.model.tsc_khz());
        fill(rng, &mut bus);
        core.bus = Box::new(bus);
        core.vcpu.eflags &= !rflags::IF;
        let make = Engine::prepare(&host, &core, Some(chips.clone()))?;
        let mut engine = make(core);
        let before = saved(&chips)?;
        engine.round_trip().with_context(|| format!("seed {seed}: KVM refuses {before}"))?;
        engine.settle();
        let after = saved(&chips)?;
        same(&before, &after).with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

/// Has a guest, of which there is only the bus, use its APICs at random.
fn fill(rng: &mut Rng, bus: &mut BoardBus) {
    let mut write = |at: u64, value: u32| {
        bus.mmio_write(0, GuestPhys(at), Width::W32, value.into());
    };
    write(LAPIC + SVR, 0x1ff);
    for pin in 0..4 {
        // Level-triggered and active low: each is asserted at once.
        write(IOAPIC, 0x10 + 2 * pin);
        write(IOAPIC + 0x10, 0xa000 | rng.u32(0x20..0xff));
    }
    for _ in 0..rng.u32(..6) {
        // To itself.
        write(LAPIC + ICR, 1 << 18 | rng.u32(0x20..0xff));
    }
    for _ in 0..rng.u32(..4) {
        bus.acknowledge(0);
    }
    let mut write = |at: u64, value: u32| {
        bus.mmio_write(0, GuestPhys(LAPIC + at), Width::W32, value.into());
    };
    write(0x80, rng.u32(..256));
    write(0xd0, rng.u32(..256) << 24);
    write(0xe0, [0xffff_ffff, 0x0fff_ffff][rng.usize(..2)]);
    write(ICR + 0x10, rng.u32(..));
    for entry in [3, 4, 5] {
        write(LVT + 0x10 * entry, rng.u32(0x10..0xff) | [0, 0x700, 0x1_0000][rng.usize(..3)]);
    }
    write(TIMER_DIVIDE, rng.u32(..8) & 3 | rng.u32(..2) << 3);
    // Masked or not, once or for ever; in seconds, if it runs.
    let mode = [0, 0x1_0000, 0x2_0000, 0x3_0000][rng.usize(..4)];
    write(LVT, mode | rng.u32(0x10..0xff));
    if rng.bool() {
        write(TIMER_INITIAL, rng.u32(3_000_000_000..));
    }
    if rng.u8(..4) == 0 {
        write(SVR, 0xff);
    }
    if rng.bool() {
        let base = bus.msr_read(0, APIC_BASE).unwrap_or_default();
        let _ = bus.msr_write(0, APIC_BASE, base | X2APIC);
    }
}

/// The state of both APICs.
fn saved(chips: &Mutex<Chipset>) -> Result<Value> {
    let chips = chips.lock().map_err(|_| anyhow::anyhow!("a lock is poisoned"))?;
    let saved = serde_json::to_value(chips.saved())?;
    Ok(json!({ "lapic": saved["lapic"], "ioapic": saved["ioapic"] }))
}

fn same(before: &Value, after: &Value) -> Result<()> {
    let (mut before, mut after) = (before.clone(), after.clone());
    let [was, is] = [&mut before, &mut after].map(|state| {
        let timer = &mut state["lapic"]["timer"];
        let count = timer["start"].take().as_u64().and(timer["count"].as_u64());
        timer["count"].take();
        count
    });
    let near = was.zip(is).map_or(was == is, |(was, is)| was.abs_diff(is) < NEAR_TICKS);
    ensure!(near, "the timer was at {was:?} and is at {is:?}");
    ensure!(before == after, "before: {before}\nafter:  {after}");
    Ok(())
}
