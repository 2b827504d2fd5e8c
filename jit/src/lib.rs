//! brolga-jit.
