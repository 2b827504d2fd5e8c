//! The meaning of every instruction, once, generic over [`crate::backend::Backend`]. Rare and
//! complex ones are plain functions over [`crate::core::Core`].

pub mod alu;
pub mod atomic;
pub mod bits;
pub mod bmi;
pub mod branch;
pub mod decimal;
pub mod divide;
pub mod moves;
pub mod multiply;
pub mod operand;
pub mod rotate_carry;
pub mod shift;
pub mod sse;
pub mod stack;
pub mod string;
pub mod x87;
