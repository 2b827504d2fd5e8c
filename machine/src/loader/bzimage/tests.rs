use super::*;
use crate::loader::EntryMode;
use crate::loader::testing::{Pc, put};

const MIB: u64 = 1 << 20;
const SETUP_LEN: usize = 5 * 512;
const BODY_LEN: usize = 4096;

/// A relocatable kernel of protocol 2.15 that prefers 16 MiB; `long` gives it a 64-bit entry.
fn kernel(long: bool) -> Vec<u8> {
    let mut image = vec![0; SETUP_LEN];
    image[0x1f1] = 4;
    put(&mut image, 0x1f4, &(BODY_LEN as u32 / 16).to_le_bytes());
    put(&mut image, 0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]);
    put(&mut image, 0x202, b"HdrS");
    put(&mut image, 0x206, &0x20fu16.to_le_bytes());
    image[0x211] = 1;
    put(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes());
    put(&mut image, 0x230, &0x20_0000u32.to_le_bytes());
    image[0x234] = 1;
    image[0x236] = long.into();
    put(&mut image, 0x238, &2047u32.to_le_bytes());
    put(&mut image, 0x258, &(16 * MIB).to_le_bytes());
    put(&mut image, 0x260, &(2 * MIB as u32).to_le_bytes());
    image.extend((0..BODY_LEN).map(|n| n as u8));
    image
}

fn body() -> Vec<u8> {
    kernel(true)[SETUP_LEN..].to_vec()
}

#[test]
fn a_64_bit_kernel_enters_long_mode_at_its_preferred_address() {
    let pc = Pc::new(32 * MIB);
    let state = pc.load(&kernel(true), None, "").expect("loads");
    assert_eq!((state.mode, state.entry), (EntryMode::Long64, 16 * MIB + 0x200));
    assert_eq!(state.registers, vec![(Gpr::Rsi, 0x9_0000)]);
    assert_eq!(pc.read(16 * MIB, BODY_LEN), body());
}

#[test]
fn a_32_bit_kernel_enters_protected_mode_at_its_start() {
    let pc = Pc::new(32 * MIB);
    let state = pc.load(&kernel(false), None, "").expect("loads");
    assert_eq!((state.mode, state.entry), (EntryMode::Protected32, 16 * MIB));
    assert_eq!(pc.u32_at(0x9_0214), 16 << 20, "code32_start");
}

#[test]
fn the_zero_page_holds_what_the_kernel_needs() {
    let pc = Pc::new(32 * MIB);
    pc.load(&kernel(true), Some(&[0xab; 5000]), "console=ttyS0 quiet").expect("loads");
    let page = 0x9_0000;
    assert_eq!(pc.read(page + 0x202, 4), b"HdrS");
    assert_eq!(pc.read(page + 0x210, 2), [0xff, 1], "loader type, load flags");
    assert_eq!(pc.u64_at(page + 0x70), pc.rsdp().0);
    let cmdline = pc.u32_at(page + 0x228).into();
    assert_eq!(pc.read(cmdline, 20), b"console=ttyS0 quiet\0");
    let initrd = pc.u32_at(page + 0x218).into();
    assert_eq!(initrd, 32 * MIB - 8192, "as high as possible, on a page");
    assert_eq!(pc.u32_at(page + 0x21c), 5000);
    assert_eq!(pc.read(initrd, 5000), [0xab; 5000]);
    assert_eq!(pc.read(page + 0x1ef, 1), [0], "the sentinel");
    assert_eq!(pc.read(page, 0x40), [0; 0x40], "no screen");
    assert_eq!(pc.read(page + 0x1e8, 1), [4], "E820 entries");
    assert_eq!(pc.u64_at(page + 0x2d0), 0);
    assert_eq!(pc.u64_at(page + 0x2d8), 0x9_fc00);
    assert_eq!(pc.u32_at(page + 0x2e0), 1);
    assert_eq!(pc.u64_at(page + 0x2d0 + 60), MIB);
    assert_eq!(pc.u64_at(page + 0x2d0 + 68), 31 * MIB);
}

#[test]
fn the_initrd_stays_below_the_limit_of_the_kernel() {
    let pc = Pc::new(64 * MIB);
    let mut image = kernel(true);
    put(&mut image, 0x22c, &(40 * MIB as u32 + 99).to_le_bytes());
    pc.load(&image, Some(&[1; 10]), "").expect("loads");
    assert_eq!(pc.u32_at(0x9_0218), 40 << 20, "the last page that ends below the limit");
}

#[test]
fn an_initrd_larger_than_memory_is_refused() {
    let pc = Pc::new(32 * MIB);
    let refused = pc.load(&kernel(true), Some(&vec![0; 33 << 20]), "");
    let message = refused.expect_err("it does not fit").to_string();
    assert!(message.contains("no room for the initrd (33 MiB)"), "{message}");
}

#[test]
fn memory_must_hold_what_the_kernel_needs_to_start() {
    let enough = 18 * MIB;
    assert!(Pc::new(enough).load(&kernel(true), None, "").is_ok());
    let refused = Pc::new(enough - PAGE_SIZE).load(&kernel(true), None, "");
    assert!(matches!(refused, Err(LoadError::NoRoom { what: "kernel", .. })), "{refused:?}");
}

#[test]
fn a_kernel_that_does_not_relocate_starts_at_1_mib() {
    let mut image = kernel(false);
    image[0x234] = 0;
    let pc = Pc::new(18 * MIB);
    assert_eq!(pc.load(&image, None, "").expect("loads").entry, MIB);
    assert_eq!(pc.read(MIB, BODY_LEN), body());
    let refused = Pc::new(17 * MIB).load(&image, None, "");
    assert!(matches!(refused, Err(LoadError::NoRam { .. })), "init_size at 16 MiB: {refused:?}");
    put(&mut image, 0x258, &u64::MAX.to_le_bytes());
    assert!(matches!(pc.load(&image, None, ""), Err(LoadError::NoRam { .. })));
}

#[test]
fn the_first_protocol_finds_its_command_line_beside_the_zero_page() {
    let mut image = kernel(false);
    put(&mut image, 0x206, &0x200u16.to_le_bytes());
    let pc = Pc::new(8 * MIB);
    assert_eq!(pc.load(&image, None, "ro").expect("loads").entry, MIB);
    assert_eq!(pc.u32_at(0x9_0020), 0x1000_a33f);
    assert_eq!(pc.read(0x9_1000, 3), b"ro\0");
    let refused = pc.load(&image, None, &"x".repeat(256));
    assert!(matches!(refused, Err(LoadError::CommandLineLength { max: 255, .. })));
}

#[test]
fn long_command_lines_are_refused() {
    let pc = Pc::new(32 * MIB);
    assert!(pc.load(&kernel(true), None, &"x".repeat(2047)).is_ok());
    let refused = pc.load(&kernel(true), None, &"x".repeat(2048));
    assert!(matches!(refused, Err(LoadError::CommandLineLength { len: 2048, max: 2047 })));
}

#[test]
fn truncated_kernels_are_refused_as_such() {
    let pc = Pc::new(32 * MIB);
    let image = kernel(true);
    for len in [0x206, 0x240, SETUP_LEN, SETUP_LEN + 100, image.len() - 16] {
        let refused = pc.load(&image[..len], None, "");
        assert!(matches!(refused, Err(LoadError::Truncated { .. })), "{len} bytes: {refused:?}");
    }
}

#[test]
fn a_zimage_is_refused() {
    let mut image = kernel(false);
    image[0x211] = 0;
    assert!(Pc::new(8 * MIB).refusal(&image).contains("zImage"));
}

#[test]
fn damage_never_panics() {
    Pc::new(24 * MIB).survives_damage(&kernel(true), 0x270);
}
