//! Tests of system instructions and event delivery, grouped by what they exercise.

mod events;
mod random;
mod registers;
mod transfers;
