//! Why a guest died: what is known at the moment of its end, as text and as JSON.

mod code;
mod text;

use brolga_cpu::exception;
use brolga_cpu::system::interrupt::ChainLink;
use brolga_gdb::{DebugTarget, Registers};
use brolga_mmu::{Access, AccessKind};
use serde::Serialize;

use crate::machine::Machine;
pub use code::CodeLine;
pub(crate) use code::disassemble;

/// Instructions shown from CS:RIP on.
const INSTRUCTIONS: usize = 8;

/// What is known about a dead guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CrashReport {
    /// Instructions retired since power-on.
    pub instructions: u64,
    /// The exceptions of the last delivery, the first cause first.
    pub chain: Vec<Cause>,
    /// The registers.
    pub registers: Registers,
    /// The code at CS:RIP.
    pub code: Vec<CodeLine>,
    /// The bytes at CS:RIP, as far as they can be read.
    pub bytes: Vec<u8>,
    /// How the addresses of the page faults in the chain are translated.
    pub walks: Vec<Walk>,
    /// The last control transfers, oldest first.
    pub transfers: Vec<TransferLine>,
    /// No transfer is missing: translated code, if there is any, does not record its own.
    pub transfers_complete: bool,
}

/// An exception in the chain of causes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// The exception's name, such as `#PF`.
    pub name: &'static str,
    /// The attempt to deliver it.
    #[serde(flatten)]
    pub link: ChainLink,
}

/// A page walk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Walk {
    /// The address.
    pub linear: u64,
    /// Each paging-structure entry used, and the outcome.
    pub steps: Vec<String>,
}

/// A control transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TransferLine {
    /// Linear address of the instruction that jumped, or was interrupted.
    pub from: u64,
    /// Linear address of what was executed next.
    pub to: u64,
    /// Instructions retired then.
    pub at: u64,
}

impl CrashReport {
    /// The report about a machine as it stands.
    pub fn new(machine: &Machine) -> Self {
        let core = machine.core();
        let registers = machine.registers();
        let chain: Vec<Cause> = core
            .delivery
            .chain
            .iter()
            .map(|link| Cause { name: exception::name(link.vector), link: link.clone() })
            .collect();
        let (bytes, code) = disassemble(machine, &registers, INSTRUCTIONS);
        let walks = chain.iter().filter_map(|cause| walk(machine, cause)).collect();
        let transfers = core
            .trail
            .transfers()
            .map(|transfer| TransferLine { from: transfer.from, to: transfer.to, at: transfer.at })
            .collect();
        let instructions = machine.retired();
        let transfers_complete = !machine.accel.translates();
        Self { instructions, chain, registers, code, bytes, walks, transfers, transfers_complete }
    }
}

/// The walk of a page fault's address, for the access that its error code describes (SDM vol. 3,
/// 4.7).
fn walk(machine: &Machine, cause: &Cause) -> Option<Walk> {
    const WRITE: u32 = 1 << 1;
    const USER: u32 = 1 << 2;
    const FETCH: u32 = 1 << 4;
    let (linear, error) = (cause.link.address?, cause.link.error?);
    let kind = match error {
        _ if error & FETCH != 0 => AccessKind::Execute,
        _ if error & WRITE != 0 => AccessKind::Write,
        _ => AccessKind::Read,
    };
    let access = Access { kind, user: error & USER != 0, smap_checked: true };
    let probe = machine.probe(linear, access);
    let outcome = match &probe.outcome {
        Ok(translation) => format!("maps to {} by now", translation.phys),
        Err(fault) => format!("fails: {fault}"),
    };
    let steps = probe.steps.iter().map(ToString::to_string).chain([outcome]).collect();
    Some(Walk { linear, steps })
}

#[cfg(test)]
mod tests {
    use brolga_cpu::exception::Why;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cause_is_one_flat_object() {
        let why = Why::IdtLimit { vector: 14, limit: 0xff };
        let link = ChainLink { vector: 13, error: Some(0x72), address: None, cs: 8, rip: 9, why };
        let cause = Cause { name: exception::name(link.vector), link };
        let expected = json!({
            "name": "#GP", "vector": 13, "error": 0x72, "address": null, "cs": 8, "rip": 9,
            "why": "IDT entry 14 beyond limit 0x0ff",
        });
        assert_eq!(serde_json::to_value(&cause).expect("plain data"), expected);
        let text = "#GP (error code 0x72) at 0008:9: IDT entry 14 beyond limit 0x0ff";
        assert_eq!(cause.to_string(), text);
    }
}
