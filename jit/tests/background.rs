//! Translation on threads of its own: whenever code is ready, the guest does the same.

mod harness;

use brolga_cpu::core::Interpreter;
use brolga_jit::{Jit, JitConfig};
use harness::{core, forever, run};

/// A loop that calls a function that it has just written, every 64th time with another operand.
fn program() -> Vec<u8> {
    let program = [
        &[0x43][..],                           // inc ebx
        &[0xf6, 0xc3, 0x3f],                   // test bl, 63
        &[0x75, 0x06],                         // jnz past the store
        &[0x89, 0x1d, 0x01, 0x20, 0x00, 0x00], // mov [0x2001], ebx
        &[0xb8, 0x00, 0x20, 0x00, 0x00],       // mov eax, 0x2000
        &[0xc6, 0x00, 0x05],                   // mov byte [eax], 0x05: add eax, imm32
        &[0xc6, 0x40, 0x05, 0xc3],             // mov byte [eax + 5], 0xc3: ret
        &[0xff, 0xd0],                         // call eax
        &[0x01, 0xc6],                         // add esi, eax
        &[0x0f, 0x31],                         // rdtsc
        &[0x31, 0xc6],                         // xor esi, eax
    ];
    forever(program.concat())
}

fn jit(threads: usize) -> (Jit, u64) {
    let config = JitConfig { threshold: 2, threads, stats: true, ..JitConfig::default() };
    (Jit::new(config).expect("a host with a translator"), 3_000_000)
}

#[test]
fn the_guest_does_not_notice() {
    let (_, count) = jit(0);
    let (vcpu, ram, _) = run(Interpreter::new(core(&program())), count, u64::MAX);
    for (threads, slice) in [(1, 997), (1, u64::MAX), (3, 5003)] {
        let (jit, _) = jit(threads);
        let engine = Interpreter::with_tier(core(&program()), jit);
        let (other, other_ram, report) = run(engine, count, slice);
        assert!(vcpu == other, "{threads} threads: {vcpu:#x?}\n{other:#x?}");
        assert!(ram == other_ram, "memory, {threads} threads");
        let report = report.expect("counts");
        assert!(!report.starts_with("jit: 0 regions"), "nothing was translated: {report}");
    }
}

#[test]
fn threads_end_with_the_translator() {
    for _ in 0..20 {
        let (jit, _) = jit(2);
        // Too short for any of it to be ready.
        run(Interpreter::with_tier(core(&program()), jit), 300, u64::MAX);
    }
}
