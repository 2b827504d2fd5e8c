//! Tests of system instructions and event delivery, grouped by what they exercise.

mod random;
mod events;
mod registers;
mod transfers;
