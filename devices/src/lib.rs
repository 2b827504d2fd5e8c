//! Chips, and nothing but chips: each is a struct with registers, a `reset`, and output lines.
//! No chip knows its interrupt number, its port base or another chip; the machine wires them.
//!
//! Every access takes the guest's time ([`VmTime`]). A chip with timers computes its outputs
//! exactly from the time at which something started, so nothing drifts however seldom it is asked:
//! [`advance`](pit::Pit::advance) brings the outputs up to date, and
//! [`next_event`](pit::Pit::next_event) says when that would next change one of them.
//! After an access or an advance the machine takes what the chip has to say: line changes
//! ([`IrqLine::take`]), messages, and [`Request`]s.

#[macro_use]
mod state;

pub mod dma8237;
pub mod ferr;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod lapic;
pub mod line;
pub mod message;
pub mod misc;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod port61;
pub mod ps2;
pub mod request;
pub mod rtc;
pub mod time;
pub mod uart;

pub use line::{IrqLine, LineChange};
pub use message::{DeliveryMode, InterruptMessage};
pub use request::Request;
pub use time::VmTime;
