//! Fast paths that use the host's own processor. Each has a portable twin with the same interface
//! and the same results; the feature `portable` forces the twins.

#[cfg(all(target_arch = "x86_64", any(test, not(feature = "portable"))))]
pub mod sse;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(crate) use sse as float;

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
pub(crate) use crate::vector::portable as float;

#[cfg(all(target_arch = "x86_64", any(test, not(feature = "portable"))))]
pub mod extensions;

#[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
pub(crate) use crate::vector::crypto as extended;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
pub(crate) use extensions as extended;

#[cfg(all(test, target_arch = "x86_64"))]
mod native;
#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
