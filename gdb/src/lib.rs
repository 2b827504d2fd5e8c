//! brolga-gdb.
