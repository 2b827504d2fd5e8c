//! Instructions that call each other: the quick forms of a block's instructions end in a jump to the
//! next one, which costs the host a third of a call and a return. One of the crate's modules with
//! `unsafe`.

use std::ptr::NonNull;

use crate::backend::{Backend, Handler};
use crate::block::Op;
use crate::insn::Insn;

/// Executes an instruction and the `rest` of its block after it. rustc turns the call at its end
/// into a jump where it optimises; where it does not, the stack holds one frame for each
/// instruction of a block at most.
pub type Chained<B> = fn(&mut B, &Op<B>, &[Op<B>]) -> Result<(), <B as Backend>::E>;

#[inline(always)]
fn go_on<B: Backend>(b: &mut B, rest: &[Op<B>]) -> Result<(), B::E> {
    match rest {
        [] => Ok(()),
        [op, rest @ ..] => (op.quick)(b, op, rest),
    }
}

/// [`Op::handler`], chained.
pub fn full<B: Backend>(b: &mut B, op: &Op<B>, rest: &[Op<B>]) -> Result<(), B::E> {
    b.arrive(&op.insn);
    (op.handler)(b, &op.insn)?;
    if b.leaving() { Ok(()) } else { go_on(b, rest) }
}

/// `f`, chained. It must be a function, and one that neither asks for the time nor has the block
/// left: memory it accesses through [`Backend::quick_load`] and the like only.
pub fn quick<B: Backend, F>(_: F) -> Chained<B>
where
    F: Fn(&mut B, &Insn) -> Result<(), B::E> + Copy,
{
    const { assert!(size_of::<F>() == 0, "a function, not a pointer to one") };
    chained::<B, F>
}

fn chained<B: Backend, F>(b: &mut B, op: &Op<B>, rest: &[Op<B>]) -> Result<(), B::E>
where
    F: Fn(&mut B, &Insn) -> Result<(), B::E> + Copy,
{
    // SAFETY: `quick` was given a value of `F`, and seen that it has no size: it is anywhere.
    let f = unsafe { NonNull::<F>::dangling().as_ref() };
    if let Err(exit) = f(b, &op.insn) {
        b.arrive(&op.insn);
        return Err(exit);
    }
    go_on(b, rest)
}

/// The meaning of an instruction, in both forms.
pub struct Bound<B: Backend> {
    /// See [`Op::handler`].
    pub handler: Handler<B>,
    /// See [`Op::quick`].
    pub quick: Chained<B>,
}

impl<B: Backend> Bound<B> {
    /// A meaning that has no quick form.
    pub fn full(handler: Handler<B>) -> Bound<B> {
        Bound { handler, quick: full }
    }
}
