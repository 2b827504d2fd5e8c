//! Instructions and leaves that came with single features.

use crate::cpuid::CpuModel;
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{SegReg, cr4, gpr, rflags};

const NOT_MAPPED: u64 = 0x1234_5678_9000;

#[test]
fn segment_bases_are_read_and_written() {
    let mut b = Bench::long();
    // RDFSBASE RAX, without CR4.FSGSBASE.
    b.step(&[0xf3, 0x48, 0x0f, 0xae, 0xc0]);
    assert_eq!(b.fault().0, vector::UD);
    for (write, read, reg) in [(0xd0, 0xc1, SegReg::Fs), (0xd8, 0xc9, SegReg::Gs)] {
        let mut b = Bench::long();
        b.core().vcpu.sys.cr4 |= cr4::FSGSBASE;
        b.set(gpr::RAX, NOT_MAPPED);
        b.step(&[0xf3, 0x48, 0x0f, 0xae, write]);
        assert_eq!(b.core().vcpu.seg(reg).base, NOT_MAPPED);
        b.step(&[0xf3, 0x48, 0x0f, 0xae, read]);
        assert_eq!(b.reg(gpr::RCX), NOT_MAPPED);
        b.set(gpr::RAX, 1 << 62);
        b.step(&[0xf3, 0x48, 0x0f, 0xae, write]);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "not canonical");
    }
}

#[test]
fn processors_tell_their_number() {
    let mut b = Bench::long().user();
    b.core().vcpu.sys.tsc_aux = 0x1234_5678;
    b.set(gpr::RAX, u64::MAX);
    // RDPID RAX, then RDTSCP.
    b.step(&[0xf3, 0x0f, 0xc7, 0xf8]);
    assert_eq!(b.reg(gpr::RAX), 0x1234_5678);
    b.set(gpr::RCX, u64::MAX);
    b.step(&[0x0f, 0x01, 0xf9]);
    assert_eq!(b.reg(gpr::RCX), 0x1234_5678);
    b.core().vcpu.sys.cr4 |= cr4::TSD;
    b.step(&[0xf3, 0x0f, 0xc7, 0xf8]);
    assert!(b.quiet(), "RDPID reads no counter");
    b.step(&[0x0f, 0x01, 0xf9]);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "RDTSCP does");
}

#[test]
fn seeds_are_drawn_as_random_numbers_are() {
    // RDSEED AX, EAX and RAX.
    let forms: [(&[u8], u32); 3] = [
        (&[0x66, 0x0f, 0xc7, 0xf8], 16),
        (&[0x0f, 0xc7, 0xf8], 32),
        (&[0x48, 0x0f, 0xc7, 0xf8], 64),
    ];
    for (code, bits) in forms {
        let mut b = Bench::long();
        let before = 0x5555_5555_5555_5555;
        b.set(gpr::RAX, before);
        b.core().vcpu.set_rflags(rflags::STATUS);
        b.step(code);
        let changed = b.reg(gpr::RAX) ^ before;
        let kept =
            if bits == 16 { changed >> 16 == 0 } else { b.reg(gpr::RAX) >> 1 >> (bits - 1) == 0 };
        assert!(changed != 0 && kept, "{bits} bits");
        assert_eq!(b.core().vcpu.rflags() & rflags::STATUS, rflags::CF, "{bits} bits");
    }
}

#[test]
fn cache_lines_are_flushed_where_they_can_be_read() {
    // CLFLUSH, CLFLUSHOPT and CLWB [RDI].
    let flushes: [&[u8]; 3] =
        [&[0x0f, 0xae, 0x3f], &[0x66, 0x0f, 0xae, 0x3f], &[0x66, 0x0f, 0xae, 0x37]];
    for code in flushes {
        let mut b = Bench::long();
        b.set(gpr::RDI, ENTRY);
        b.step(code);
        assert!(b.quiet(), "{code:02x?}");
        b.set(gpr::RDI, NOT_MAPPED);
        b.step(code);
        assert_eq!(b.fault(), (vector::PF, Some(0)), "{code:02x?}");
    }
}

#[test]
fn caches_are_the_kernels_and_serializing_everybodys() {
    // WBNOINVD and SERIALIZE.
    let mut b = Bench::long();
    b.step(&[0xf3, 0x0f, 0x09]);
    assert!(b.quiet());
    let mut b = Bench::long().user();
    b.step(&[0x0f, 0x01, 0xe8]);
    assert!(b.quiet());
    b.step(&[0xf3, 0x0f, 0x09]);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
}

#[test]
fn debugging_extensions_take_the_aliases_away() {
    // MOV EAX, DR4.
    for (de, faults) in [(0, false), (cr4::DE, true)] {
        let mut b = Bench::protected();
        b.core().vcpu.sys.cr4 |= de;
        b.step(&[0x0f, 0x21, 0xe0]);
        assert_eq!(!b.quiet(), faults);
    }
}

#[test]
fn the_hypervisor_has_a_name_where_it_shows() {
    for (model, shows) in [("max", true), ("haswell", false)] {
        let model = CpuModel::by_name(model).expect("a model");
        assert_eq!(model.leaf(1, 0, 0).ecx >> 31 != 0, shows);
        assert_eq!(model.leaf(0x4000_0000, 0, 0).ebx == u32::from_le_bytes(*b"Brol"), shows);
    }
}
