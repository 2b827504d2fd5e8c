//! Protection keys, and 5-level paging.

use crate::cpuid::{CpuModel, Feature};
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{RIP, cr0, cr4, gpr};

const RDPKRU: [u8; 3] = [0x0f, 0x01, 0xee];
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
/// MOV EAX, [RBX]; MOV [RBX], EAX.
const READ: [u8; 2] = [0x8b, 0x03];
const WRITE: [u8; 2] = [0x89, 0x03];
/// The second large page of [`Bench::long`].
const PAGE: u64 = 0x20_0000;
const KEY: u32 = 5;

/// 64-bit mode with protection keys, in which [`PAGE`] has [`KEY`].
fn with_keys() -> Bench {
    let mut b = Bench::with_cpu(CpuModel::default().with(Feature::Pku)).enter_long();
    b.put(TABLES + 0x2008, 8, PAGE | 0x87 | u64::from(KEY) << 59);
    b.core().vcpu.sys.cr4 |= cr4::PKE;
    b.core().mode_changed();
    b.set(gpr::RBX, PAGE);
    b
}

fn set_pkru(b: &mut Bench, v: u32) {
    for (r, v) in [(gpr::RAX, v), (gpr::RCX, 0), (gpr::RDX, 0)] {
        b.set(r, v.into());
    }
    b.step(&WRPKRU);
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
}

#[test]
fn pkru_takes_effect_at_once() {
    const ACCESS: u32 = 1 << (2 * KEY);
    const WRITES: u32 = 2 << (2 * KEY);
    for (pkru, code, error) in
        [(ACCESS, READ, 0b10_0001), (ACCESS, WRITE, 0b10_0011), (WRITES, WRITE, 0b10_0011)]
    {
        let mut b = with_keys();
        // The TLB holds the page, and forgets it.
        b.step(&READ);
        b.step(&WRITE);
        set_pkru(&mut b, pkru);
        b.step(&code);
        assert_eq!(b.fault(), (vector::PF, Some(error)), "{pkru:#x}");
        assert_eq!(b.core().vcpu.sys.cr2, PAGE);
    }
    let mut b = with_keys();
    set_pkru(&mut b, WRITES | !(3 << (2 * KEY)) & !3);
    b.step(&READ);
    assert!(b.quiet(), "only writes are forbidden");
    b.core().vcpu.sys.cr0 &= !cr0::WP;
    b.core().mode_changed();
    b.step(&WRITE);
    assert!(b.quiet(), "WP is off");
    set_pkru(&mut b, 0);
    b.step(&WRITE);
    assert!(b.quiet());
}

#[test]
fn without_pke_there_are_no_keys() {
    let mut b = with_keys();
    b.core().vcpu.sys.cr4 &= !cr4::PKE;
    b.core().vcpu.sys.pkru = u32::MAX;
    b.core().mode_changed();
    b.step(&WRITE);
    assert!(b.quiet());
    b.step(&RDPKRU);
    assert_eq!(b.fault().0, vector::UD);
    let mut b = Bench::with_cpu(CpuModel::default().with(Feature::Pku)).enter_protected();
    b.core().vcpu.sys.cr4 |= cr4::PKE;
    b.core().mode_changed();
    set_pkru(&mut b, u32::MAX);
    b.step(&WRITE);
    assert!(b.quiet(), "outside IA-32e mode");
}

#[test]
fn pkru_is_read_and_written_with_zeros_beside() {
    let mut b = with_keys();
    set_pkru(&mut b, 0x1234_5678);
    b.set(gpr::RDX, u64::MAX);
    b.step(&RDPKRU);
    assert_eq!((b.reg(gpr::RAX), b.reg(gpr::RDX)), (0x1234_5678, 0));
    for (code, register) in [(RDPKRU, gpr::RCX), (WRPKRU, gpr::RCX), (WRPKRU, gpr::RDX)] {
        let mut b = with_keys();
        b.set(register, 1);
        b.step(&code);
        assert_eq!(b.fault(), (vector::GP, Some(0)));
    }
}

#[test]
fn cpuid_tells_whether_keys_are_on() {
    let model = CpuModel::default().with(Feature::Pku);
    assert_eq!(model.leaf(7, 0, 0).ecx >> 3 & 3, 0b01);
    assert_eq!(model.leaf(7, 0, cr4::PKE).ecx >> 3 & 3, 0b11);
    assert_eq!(CpuModel::default().leaf(7, 0, 0).ecx >> 3 & 1, 0, "without its XSAVE component");
}

/// An address beyond 48 bits that [`five_levels`] maps as [`PAGE`], and its like for code.
const HIGH: u64 = 0x2_0000_0000_0000;

/// 64-bit mode with 5-level paging: the upper half of nothing, and the lower one twice.
fn five_levels() -> Bench {
    const TOP: u64 = TABLES + 0x3000;
    let mut b = Bench::long();
    b.put(TOP, 8, TABLES | 7);
    b.put(TOP + 8 * 2, 8, TABLES | 7);
    b.core().vcpu.sys.cr3 = TOP;
    b.core().vcpu.sys.cr4 |= cr4::LA57;
    b.core().mode_changed();
    b.core().mem.tlb.flush_all();
    b
}

#[test]
fn five_levels_translate_57_bits() {
    let mut b = five_levels();
    b.put(PAGE, 4, 0x1234_5678);
    b.set(gpr::RBX, HIGH | PAGE);
    b.step(&READ);
    assert_eq!(b.reg(gpr::RAX), 0x1234_5678);
    // JMP RBX.
    b.put(CODE + 0x100, 2, 0xfeeb);
    b.set(gpr::RBX, HIGH | (CODE + 0x100));
    b.step(&[0xff, 0xe3]);
    b.go(1);
    assert!(b.quiet(), "{:?}", b.core().delivery.chain);
    assert_eq!(b.reg(RIP), HIGH | (CODE + 0x100));
    for (address, vector) in
        [(HIGH << 1, vector::PF), (1 << 56, vector::GP), (!0 << 56, vector::PF)]
    {
        let mut b = five_levels();
        b.set(gpr::RBX, address);
        b.step(&READ);
        assert_eq!(b.fault().0, vector, "{address:#x}");
    }
    let mut b = Bench::long();
    b.set(gpr::RBX, HIGH);
    b.step(&READ);
    assert_eq!(b.fault(), (vector::GP, Some(0)), "4 levels translate 48");
}

#[test]
fn the_number_of_levels_stays_in_ia_32e_mode() {
    for (mut b, v) in [(Bench::long(), cr4::PAE | cr4::LA57), (five_levels(), cr4::PAE)] {
        b.set(gpr::RAX, v);
        b.step(&[0x0f, 0x22, 0xe0]);
        assert_eq!(b.fault(), (vector::GP, Some(0)), "{v:#x}");
    }
    let mut b = Bench::protected();
    b.set(gpr::RAX, cr4::LA57);
    b.step(&[0x0f, 0x22, 0xe0]);
    assert!(b.quiet());
}

/// Whatever CR4.LA57 says.
#[test]
fn bases_have_as_many_bits_as_the_processor() {
    for (model, ok) in [("max", true), ("haswell", false)] {
        let mut b = Bench::with_model(model).enter_long();
        b.set(gpr::RCX, 0xc000_0100);
        b.set(gpr::RAX, 0);
        b.set(gpr::RDX, HIGH >> 32);
        b.step(&[0x0f, 0x30]);
        assert_eq!(b.quiet(), ok, "{model}");
    }
    let widths = ["max", "haswell"].map(|m| {
        let model = CpuModel::by_name(m).expect("a model");
        model.leaf(0x8000_0008, 0, 0).eax >> 8 & 0xff
    });
    assert_eq!(widths, [57, 48]);
}
