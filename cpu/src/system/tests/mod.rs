//! Tests of system instructions and event delivery, grouped by what they exercise.

mod alignment;
mod events;
mod pcid;
mod random;
mod registers;
mod stack;
mod transfers;
