//! Stack instructions whose operand size is not that of the stack.

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
