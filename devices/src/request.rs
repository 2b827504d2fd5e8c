//! What a chip asks of the machine.

use serde::{Deserialize, Serialize};

/// A request that a guest made through a chip's register, for the machine to carry out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Switch the power off (ACPI S5).
    PowerOff,
    /// Reset the machine.
    Reset,
    /// The level of the A20 gate that this chip drives has changed.
    A20(bool),
    /// End the run; the value is what the guest wrote to the exit port.
    Exit(u32),
}
