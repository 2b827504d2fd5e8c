//! Tests of system instructions and event delivery, grouped by what they exercise.

mod alignment;
mod events;
mod features;
mod models;
mod paging;
mod pcid;
mod random;
mod registers;
mod stack;
mod transfers;
