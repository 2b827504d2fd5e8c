//! brolga-machine.
