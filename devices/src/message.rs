//! Interrupt messages: what IOAPICs and local APICs send to local APICs.

use serde::{Deserialize, Serialize};

/// The destination that means every local APIC, in both destination modes and both APIC modes
/// (SDM vol. 3, 10.6.2).
pub const BROADCAST: u32 = u32::MAX;

/// How a message acts on its destination (SDM vol. 3, 10.6.1 and 10.11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// An interrupt with the message's vector.
    Fixed,
    /// As fixed, to the one destination that runs at the lowest priority.
    LowestPriority,
    /// A system-management interrupt.
    Smi,
    /// Reserved encoding 3 (remote read on the earliest APICs).
    Reserved,
    /// A non-maskable interrupt.
    Nmi,
    /// The INIT reset.
    Init,
    /// Start-up: begin at the real-mode page that the vector names. In an
    /// IOAPIC this encoding is reserved.
    StartUp,
    /// An interrupt whose vector the 8259 supplies.
    ExtInt,
}

impl DeliveryMode {
    /// Decodes the three-bit field that ICR, LVT and redirection entries share.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }

    /// The three-bit field.
    pub fn bits(self) -> u32 {
        self as u32
    }
}

/// An interrupt on its way to one or more local APICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptMessage {
    /// The vector; for a start-up message, the page number.
    pub vector: u8,
    /// What the message does.
    pub delivery: DeliveryMode,
    /// An APIC id or a set of logical ids; [`BROADCAST`] is every local APIC.
    pub destination: u32,
    /// Whether `destination` is a set of logical ids.
    pub logical: bool,
    /// Whether the interrupt is level-triggered: its EOI must go back to the IOAPICs.
    pub level: bool,
}

impl InterruptMessage {
    /// The message that an 8-bit destination field (an IOAPIC's, an xAPIC's) addresses.
    pub fn with_short_destination(
        vector: u8,
        delivery: DeliveryMode,
        destination: u8,
        logical: bool,
        level: bool,
    ) -> Self {
        let destination = if destination == 0xff { BROADCAST } else { destination.into() };
        Self { vector, delivery, destination, logical, level }
    }
}
