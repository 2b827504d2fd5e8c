//! More code than the arena holds.

mod harness;

use brolga_cpu::core::Interpreter;
use brolga_jit::{Jit, JitConfig};
use harness::{core, forever, run};

const COUNT: u64 = 20_000;

/// The number before some words in what the translator reports.
fn number_before(report: &str, words: &str) -> Option<u64> {
    let (before, _) = report.split_once(words)?;
    before.rsplit(' ').next()?.parse().ok()
}

#[test]
fn the_oldest_code_makes_room_for_new() -> Result<(), Box<dyn std::error::Error>> {
    // A round of 4000 instructions: lea ebx, [ebx + n]; add eax, ebx; and at times jmp to the next.
    let steps = (0..2000_u32).flat_map(|n| {
        let next: &[u8] = if n % 16 == 0 { &[0xeb, 0] } else { &[] };
        [&[0x8d, 0x5b, n as u8, 0x01, 0xd8][..], next].concat()
    });
    let program = forever(steps.collect());
    let (vcpu, ram, _) = run(Interpreter::new(core(&program)), COUNT, u64::MAX);
    for (cache_bytes, full) in [(16 << 10, true), (4 << 20, false)] {
        let config = JitConfig { threshold: 1, cache_bytes, stats: true, ..JitConfig::default() };
        let engine = Interpreter::with_tier(core(&program), Jit::new(config)?);
        let (other, other_ram, report) = run(engine, COUNT, 1000);
        assert!(vcpu == other && ram == other_ram, "{vcpu:#x?}\n{other:#x?}");
        let report = report.ok_or("no counts")?;
        let times = number_before(&report, " times the oldest dropped").ok_or("no such line")?;
        assert_eq!(times > 0, full, "{report}");
        assert_eq!(number_before(&report, " times all"), Some(0), "{report}");
    }
    Ok(())
}
