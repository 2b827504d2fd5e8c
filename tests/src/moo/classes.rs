//! Where a later processor differs from the captured 80286, each class with its reason.

use super::Case;
use super::run::Difference;

/// A class of differences.
pub struct Class {
    /// A short name for the report.
    pub name: &'static str,
    /// Why a later processor differs.
    pub reason: &'static str,
    /// Whether all differences of a case belong to it.
    pub explains: fn(&Case, &[Difference]) -> bool,
}

/// All classes.
pub const CLASSES: &[Class] = &[];
