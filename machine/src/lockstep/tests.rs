//! Engines that differ on purpose are found, to the instruction; slices do not show.

use brolga_cpu::core::{Core, Interpreter, Stop};
use brolga_cpu::cpuid::CpuModel;
use brolga_cpu::vcpu::gpr;
use brolga_mmu::{GuestPhys, Width};

use super::*;
use crate::accel::{AccelKind, Accelerator, EngineSpec, Surroundings};
use crate::clock::ClockKind;
use crate::firmware::MemoryLayout;
use crate::machine::{Guest, MachineConfig, OnTripleFault};

const EVERY: u64 = 10_000;

fn config(accel: EngineSpec) -> MachineConfig {
    MachineConfig {
        memory: MemoryLayout::new(32 << 20).expect("a size of RAM"),
        cpu: CpuModel::by_name("max").expect("a model"),
        accel,
        kvm: None,
        clock: ClockKind::Virtual,
        guest: Guest::Rom(brolga_test_roms::default_guest()),
        on_triple_fault: OnTripleFault::Stop,
        stop_text: None,
        taps: Vec::new(),
    }
}

/// The embedded guest for some instructions, on an interpreter and on what `other` makes.
fn compare(other: impl Fn(Core) -> Box<dyn Accelerator>, instructions: u64) -> Verdict {
    let build = |engine: usize, serial: Serial| {
        let config = config(AccelKind::Interp.into());
        match engine {
            0 => Machine::new(config, serial),
            _ => Machine::with_accelerator(config, serial, |core, _| Ok(other(core))),
        }
    };
    let limits = Limits { instructions: Some(instructions), deadline: None };
    let settings = Settings { every: EVERY, ram_every: 8, limits };
    run(&build, &settings).expect("the guest fits")
}

fn difference(harm: Harm, at: u64) -> Report {
    let other = move |core| -> Box<dyn Accelerator> {
        Box::new(Wrong { engine: Interpreter::new(core), at, harm })
    };
    match compare(other, 500_000) {
        Verdict::Different(report) => *report,
        Verdict::Same { .. } => panic!("the difference was not seen"),
    }
}

/// Does something wrong to its vCPU.
type Harm = fn(&mut Core);

/// An interpreter that does its vCPU harm once, as part of the instruction after the first `at`.
struct Wrong {
    engine: Interpreter,
    at: u64,
    harm: Harm,
}

impl Accelerator for Wrong {
    fn run(&mut self, budget: u64) -> Stop {
        let from = self.engine.core.now();
        let end = from.saturating_add(budget);
        let due = self.at + 1;
        if from >= due || end < due {
            return self.engine.run(budget);
        }
        let stop = self.engine.run(due - from);
        if self.engine.core.now() < due {
            return stop;
        }
        (self.harm)(&mut self.engine.core);
        if stop == Stop::Budget { self.engine.run(end - due) } else { stop }
    }

    fn core(&self) -> &Core {
        &self.engine.core
    }

    fn core_mut(&mut self) -> &mut Core {
        &mut self.engine.core
    }

    fn invalidate_code(&mut self, at: GuestPhys, len: u64) {
        self.engine.invalidate_code(at, len);
    }
}

#[test]
fn a_flipped_bit_is_found_where_it_flips() {
    for at in [0, 1, 12_345, 89_999, 100_000, 234_567] {
        let report = difference(|core| core.vcpu.xmm[9] ^= 1 << 64, at);
        assert_eq!((report.before, report.after), (at, at + 1));
        let differing: Vec<_> = report.registers.iter().filter(|row| row.differs()).collect();
        assert_eq!(differing.len(), 1, "{report}");
        assert_eq!(differing[0].name, "xmm9");
        assert_eq!(differing[0].after[1], format!("{:032x}", 1_u128 << 64));
        assert!(report.memory.is_empty() && !report.code.is_empty());
        let text = report.to_string();
        assert!(text.contains(&format!("agree after {at} instructions")), "{text}");
        assert!(text.contains("\n> xmm9"), "{text}");
    }
}

#[test]
fn a_wrong_byte_in_ram_is_found_where_it_was_written() {
    const AT: u64 = 0x10_1238;
    let report = difference(
        |core| {
            let _ = core.mem.map.write_phys(GuestPhys(AT), Width::W8, 0x5a);
        },
        123_456,
    );
    assert_eq!((report.before, report.after), (123_456, 123_457), "{report}");
    assert!(!report.registers.iter().any(Row::differs), "{report}");
    assert_eq!(report.memory.len(), 1);
    assert_eq!((report.memory[0].at, report.memory[0].bytes[1][8]), (AT & !15, 0x5a));
}

#[test]
fn a_shut_down_vcpu_is_a_difference() {
    let report = difference(|core| core.vcpu.activity = brolga_cpu::vcpu::Activity::Shutdown, 7777);
    assert_eq!((report.before, report.after), (7777, 7778), "{report}");
}

#[test]
fn slices_do_not_show() {
    for slice in [1, 2, 3, 1000] {
        let spec: EngineSpec = format!("interp:slice={slice}").parse().expect("an engine");
        match compare(
            move |core| spec.build(core, Surroundings::default()).expect("an interpreter"),
            3_000_000,
        ) {
            Verdict::Same { instructions, .. } => assert_eq!(instructions, 3_000_000),
            Verdict::Different(report) => panic!("slices of {slice}: {report}"),
        }
    }
}

#[test]
fn a_run_in_pieces_is_the_run_in_one() {
    let hash = |piece: u64| {
        let answer = |typed: &str| crate::serial::Answer {
            after: crate::serial::TextMatch::new("> "),
            typed: typed.into(),
        };
        let serial = Serial::nowhere().with_answers(["help\r", "regs\r"].map(answer));
        let mut machine =
            Machine::new(config(AccelKind::Interp.into()), serial).expect("the guest fits");
        for limit in (piece..=6_000_000).step_by(piece as usize) {
            machine.run(&Limits { instructions: Some(limit), deadline: None });
            assert_eq!(machine.retired(), limit);
            // To look at the state changes nothing either.
            machine.chips();
        }
        machine.state_hash()
    };
    let whole = hash(6_000_000);
    assert_eq!(hash(1_000), whole);
    assert_eq!(hash(150), whole);
}

#[test]
fn registers_that_differ_in_representation_only_agree() {
    let other = |core: Core| -> Box<dyn Accelerator> {
        let mut engine = Interpreter::new(core);
        let vcpu = &mut engine.core.vcpu;
        let rax = vcpu.regs[usize::from(gpr::RAX)];
        vcpu.flags = brolga_cpu::flags::LazyFlags {
            r: 1,
            a: rax,
            b: 0,
            op: brolga_cpu::flags::FlagOp::Logic,
            w: Width::W64,
            replaced: brolga_cpu::flags::Replaced::NONE,
        };
        Box::new(engine)
    };
    assert!(matches!(compare(other, 10), Verdict::Same { .. }));
}
