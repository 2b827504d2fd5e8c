//! Stack instructions whose operand size is not that of the stack.

use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::gpr;

/// SDM vol. 2, PUSHA/PUSHAD: by operand size, what is pushed is all of ESP.
#[test]
fn pushad_on_a_16_bit_stack_pushes_the_whole_of_esp() {
    const ESP: u64 = 0x5_0000 + STACK;
    let mut b = Bench::real();
    b.set(gpr::RSP, ESP);
    b.step(&[0x66, 0x60]);
    assert_eq!(b.reg(gpr::RSP), ESP - 32);
    assert_eq!(b.get(STACK - 20, 4), ESP);
}

/// SDM vol. 2, ENTER: FrameTemp is ESP where the operand size is 32, SP where it is 16.
#[test]
fn enter_on_a_16_bit_stack_keeps_the_whole_of_esp() {
    const ESP: u64 = 0x5_0000 + STACK;
    for (prefix, bytes, rbp) in [(&[0x66][..], 4, ESP - 4), (&[], 2, 0x9_0000 | (STACK - 2))] {
        let mut b = Bench::real();
        b.set(gpr::RSP, ESP);
        b.set(gpr::RBP, 0x9_6000);
        b.step(&[prefix, &[0xc8, 0x10, 0, 1]].concat());
        assert_eq!(b.reg(gpr::RBP), rbp);
        assert_eq!(b.reg(gpr::RSP), ESP - 2 * bytes as u64 - 0x10);
        let mask = (1 << (8 * bytes)) - 1;
        assert_eq!(b.get(STACK - bytes as u64, bytes), 0x9_6000 & mask, "the old frame");
        assert_eq!(b.get(STACK - 2 * bytes as u64, bytes), rbp & mask, "the new one");
    }
}

/// SDM vol. 2, 2.1.1: 64-bit mode ignores all segment prefixes but FS and GS, so that the base
/// register alone says whether an address that is not canonical is #SS or #GP.
#[test]
fn ignored_segment_prefixes_do_not_say_which_fault_it_is() {
    const HOLE: u64 = 0x8000_0000_0000;
    for (code, vector) in [
        (&[0x8a, 0x45, 0x00][..], vector::SS),
        (&[0x3e, 0x8a, 0x45, 0x00], vector::SS),
        (&[0x26, 0x8a, 0x45, 0x00], vector::SS),
        (&[0x64, 0x8a, 0x45, 0x00], vector::GP),
        (&[0x36, 0x8a, 0x03], vector::GP),
    ] {
        let mut b = Bench::long();
        b.set(gpr::RBP, HOLE);
        b.set(gpr::RBX, HOLE);
        b.step(code);
        assert_eq!(b.fault(), (vector, Some(0)), "{code:02x?}");
    }
}
