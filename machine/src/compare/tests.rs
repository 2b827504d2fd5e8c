//! The ROM under engines that must agree, and reports of fixed figures.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use brolga_cpu::cpuid::CpuModel;

use super::clock::By;
use super::host::{Host, Virtualization};
use super::measure::{Outcome, Problem, config, measure};
use super::report::{KvmKind, Report};
use super::watch::{Failure, Measured, Plan, Sample, Watch};
use super::{Engine, Settings, Subject, html, print};
use crate::clock::ClockKind;
use crate::exit::End;
use crate::machine::Machine;
use crate::run::Limits;
use crate::serial::Serial;

fn settings(engines: &[&str]) -> Settings {
    Settings {
        engines: engines.iter().map(|name| Engine::named(name)).collect(),
        cpu: CpuModel::by_name("max").unwrap(),
        memory: 16 << 20,
        rounds: 1,
        samples: 1,
        sample: Duration::from_micros(200),
        by: By::Wall,
        timeout: Duration::from_secs(120),
    }
}

/// What an engine makes of the ROM in virtual time: the guest's time of each row, and the state at
/// the end.
fn replay(engine: &str) -> Result<(Vec<u64>, String)> {
    let (subject, settings) = (Subject::nanobench(), settings(&[engine]));
    let (config, _) = config(&subject, &settings, &settings.engines[0], ClockKind::Virtual)?
        .map_err(|problem| anyhow::anyhow!("{engine}: {problem:?}"))?;
    let mut machine = Machine::new(config, Serial::nowhere())?;
    let watch = Watch::new(Plan::Fixed(300), By::Wall);
    machine.set_stopwatch(Box::new(watch.clone()));
    let end = machine.run(&Limits::default());
    assert!(matches!(end, End::ExitPort { value: 0 }), "{engine}: {end:?}");
    let measured = watch.measured();
    assert_eq!(measured.len(), subject.rows.len(), "{engine}");
    let times = measured.iter().map(|(number, row)| {
        let name = &subject.rows[*number as usize].name;
        assert_eq!(row.failure, None, "{name} by {engine}");
        row.samples[0].guest_ns
    });
    Ok((times.collect(), machine.state_hash()))
}

#[test]
fn engines_agree_on_every_row_of_the_rom() -> Result<()> {
    let expected = replay("interp")?;
    assert!(expected.0.iter().all(|&ns| ns >= 600), "{:?}", expected.0);
    for engine in ["interp:slice=7", "jit:threshold=1", "jit:threshold=40"] {
        assert_eq!(replay(engine)?, expected, "{engine}");
    }
    Ok(())
}

#[test]
fn the_rom_is_measured_by_an_engine_and_the_missing_one_is_named() -> Result<()> {
    let settings = settings(&["interp", "jit:threshold=50", "abacus"]);
    let subject = Subject::nanobench();
    let outcomes = measure(&subject, &settings, &|_, _, _, _| {})?;
    let report = Report::new(&subject, &settings, Host::default(), &outcomes);
    assert!(report.wrong().is_empty(), "{:?}", report.wrong());
    let measured: Vec<&str> = report.measured().map(|(_, c)| c.name.as_str()).collect();
    assert_eq!(measured, ["interp", "jit:threshold=50"]);
    let problem = report.engines[2].problem.as_deref().unwrap_or_default();
    assert!(problem.contains("there is no engine \"abacus\""), "{problem}");
    for row in &report.rows {
        assert!(row.cells[..2].iter().all(|cell| cell.time.is_some()), "{row:?}");
    }
    let wrmsr = report.rows.iter().find(|row| row.name == "wrmsr").unwrap();
    let counts = &wrmsr.cells[1].counts;
    assert!(counts.iter().any(|(what, n)| what.contains("Wrmsr") && *n > 0.9), "{counts:?}");
    Ok(())
}

#[test]
fn a_guest_that_dies_has_no_figures() -> Result<()> {
    let settings = settings(&["interp"]);
    let guest = crate::machine::Guest::Rom(brolga_test_roms::exit_rom(7));
    let subject = Subject::other("exit".into(), guest, None);
    let outcomes = measure(&subject, &settings, &|_, _, _, _| {})?;
    let died = Problem::Died("the guest has exited with 7".into());
    assert_eq!(outcomes[0].problem, Some(died));
    Ok(())
}

#[test]
fn another_guest_is_timed_as_a_whole() -> Result<()> {
    let settings = settings(&["interp"]);
    let guest = crate::machine::Guest::Rom(brolga_test_roms::hello_rom());
    let subject = Subject::other("hello".into(), guest, None);
    let outcomes = measure(&subject, &settings, &|_, _, _, _| {})?;
    let report = Report::new(&subject, &settings, Host::default(), &outcomes);
    assert_eq!((report.rows.len(), report.rows[0].name.as_str()), (1, "run"));
    assert!(report.rows[0].cells[0].time.is_some());
    let told = print::text(&report, print::Unit::Time);
    assert!(told.contains("of whole runs") && !told.contains("subtracted"), "{told}");
    Ok(())
}

/// Samples whose repetitions take so many nanoseconds.
fn samples(ns: &[f64]) -> Measured {
    let sample = |ns: &f64| Sample {
        repetitions: 1000,
        host: Duration::from_nanos((ns * 1000.0) as u64),
        guest_ns: 0,
    };
    Measured { samples: ns.iter().map(sample).collect(), failure: None }
}

/// Four rows: the two empty loops, one that takes `ns`, one that fails.
fn outcome(loops: [f64; 2], ns: &[f64], failure: Failure) -> Outcome {
    let failed = Measured { failure: Some(failure), ..Measured::default() };
    let rows = [samples(&[loops[0]; 3]), samples(&[loops[1]; 3]), samples(ns), failed];
    Outcome {
        rounds: vec![(0..).zip(rows).collect()],
        counts: BTreeMap::from([(2, vec![("called Call<&>".into(), 1.5), ("rare".into(), 0.001)])]),
        ..Outcome::default()
    }
}

fn host() -> Host {
    Host {
        cpu: "A CPU & more".into(),
        processors: 2,
        kernel: "linux 6.1".into(),
        virtual_machine: true,
        tsc_ghz: Some(2.5),
        virtualization: Virtualization {
            extension: None,
            device: true,
            module: Some("kvm_pvm".into()),
        },
    }
}

/// With two forms of KVM, and nothing else or the interpreter.
#[test]
fn other_forms_of_kvm_are_kvm() {
    let mut subject = Subject::nanobench();
    subject.rows.truncate(4);
    let failure = Failure::Exception(6);
    let ran = |loops, times: &[f64]| outcome(loops, times, failure);
    let slow = || ran([8.0, 8.0], &[48.0, 48.0]);
    let forms = ["kvm:kernel-irqchip=split", "kvm", "interp"];
    for (loops, kind, reference) in
        [([40.0, 0.5], KvmKind::Emulating, 2), ([0.5, 0.5], KvmKind::Hardware, 0)]
    {
        let outcomes = [ran(loops, &[2.5, 2.5]), ran(loops, &[3.5, 3.5]), slow()];
        let report = Report::new(&subject, &settings(&forms), host(), &outcomes);
        assert_eq!((report.kvm.kind, report.reference), (kind, Some(reference)));
        let alone = Report::new(&subject, &settings(&forms[..2]), host(), &outcomes[..2]);
        assert_eq!(alone.reference_is, "Ratios are to kvm:kernel-irqchip=split.");
    }
}

fn report(kvm: Outcome) -> Report {
    let mut subject = Subject::nanobench();
    subject.rows.truncate(4);
    let count = Failure::Count { asked: 1000, seen: 999 };
    let interp = outcome([8.0, 8.0], &[48.0, 50.0, 56.0, 58.0, 60.0], count);
    let jit = outcome([1.0, 1.0], &[5.0, 6.0, 7.0], Failure::Exception(6));
    Report::new(&subject, &settings(&["interp", "jit", "kvm"]), host(), &[interp, jit, kvm])
}

/// KVM with a level 0 that is emulated, as fast as on hardware, and missing.
fn reports() -> [Report; 3] {
    let missing = Problem::Unavailable("cannot open /dev/kvm".into());
    let failure = Failure::Exception(6);
    [
        report(outcome([40.0, 0.5], &[900.0, 940.0, 980.0], failure)),
        report(outcome([0.5, 0.5], &[2.5, 2.5, 2.5], failure)),
        report(Outcome { problem: Some(missing), ..Outcome::default() }),
    ]
}

#[test]
fn kvm_is_the_reference_only_where_it_is_hardware() {
    let found = reports().map(|report| (report.kvm.kind, report.reference));
    let expected =
        [(KvmKind::Emulating, Some(1)), (KvmKind::Hardware, Some(2)), (KvmKind::Missing, Some(1))];
    assert_eq!(found, expected);
}

#[test]
fn a_level_0_that_no_processor_has_is_an_emulator_whatever_level_3_does() {
    let mut kvm = outcome([40.0, 0.5], &[900.0], Failure::Exception(6));
    let failed = Measured { failure: Some(Failure::Exception(6)), ..Measured::default() };
    kvm.rounds[0].insert(1, failed);
    let found = report(kvm).kvm;
    assert_eq!(found.kind, KvmKind::Emulating, "{}", found.words);
}

#[test]
fn what_guests_miss_under_kvm_is_told() {
    let missing = vec!["SYSCALL is broken".to_owned(), "no AVX".to_owned()];
    let died = Problem::Died("triple fault".into());
    let ran = outcome([0.5, 0.5], &[2.5], Failure::Exception(6));
    for kvm in [ran, Outcome { problem: Some(died), ..Outcome::default() }] {
        let report = report(Outcome { missing: missing.clone(), ..kvm });
        let told = print::text(&report, print::Unit::Time);
        assert!(told.contains(". SYSCALL is broken. no AVX.\n"), "{told}");
    }
}

#[test]
fn loops_are_subtracted_and_medians_are_in_the_middle() {
    let [_, hardware, _] = reports();
    let cells = &hardware.rows[2].cells;
    let time = cells[0].time.unwrap();
    assert_eq!((time.median_ns, time.quartiles_ns), (48.0, [42.0, 50.0]));
    assert_eq!(time.cycles, Some(120.0));
    assert_eq!(cells[0].ratio, Some(24.0));
    assert_eq!(cells[0].counts.len(), 1, "what is rare is not told");
}

#[test]
fn reports_look_like_their_snapshots() {
    let [emulating, hardware, missing] = reports();
    insta::assert_snapshot!("text_emulating", print::text(&emulating, print::Unit::Time));
    insta::assert_snapshot!("text_hardware", print::text(&hardware, print::Unit::Cycles));
    insta::assert_snapshot!("markdown_missing", print::markdown(&missing, print::Unit::Time));
    insta::assert_snapshot!("page", html::page(&emulating));
    let json = serde_json::to_string_pretty(&hardware).unwrap();
    insta::assert_snapshot!("json", json);
}

#[test]
fn pages_stand_alone_and_hold_no_script() {
    for report in reports() {
        let page = html::page(&report);
        for foreign in ["<script", "http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("A CPU &amp; more") && !page.contains("Call<&>"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }
}
