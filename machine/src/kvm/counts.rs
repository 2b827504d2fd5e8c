//! What an engine has done, for people and for `brolga compare`.

use std::collections::BTreeMap;

use iced_x86::{Decoder, DecoderOptions};

use super::exit::{Exit, GivesUp};

/// Counts of exits by kind, and of instructions that the interpreter has executed by why.
#[derive(Debug, Default)]
pub(super) struct Counts {
    by_name: BTreeMap<String, u64>,
    exits: [u64; EXITS.len()],
}

/// The kinds of exits.
const EXITS: [&str; 12] = [
    "port",
    "mmio",
    "rdmsr",
    "wrmsr",
    "hlt",
    "interrupt window",
    "task priority",
    "shutdown",
    "debug",
    "timer or signal",
    "gives up",
    "end of interrupt",
];

impl Counts {
    pub(super) fn exit(&mut self, exit: &Exit) {
        let kind = match exit {
            Exit::Port(_) => 0,
            Exit::Mmio(_) => 1,
            Exit::ReadMsr(_) => 2,
            Exit::WriteMsr(..) => 3,
            Exit::Halt => 4,
            Exit::Window => 5,
            Exit::Priority => 6,
            Exit::Shutdown => 7,
            Exit::Debug => 8,
            Exit::Signal => 9,
            Exit::GivesUp(_) => 10,
            Exit::EndOfInterrupt(_) => 11,
        };
        self.exits[kind] += 1;
    }

    /// The interpreter has executed `instructions`.
    pub(super) fn interpreted(&mut self, why: &str, instructions: u64) {
        self.add(&format!("interpreted: {why}"), instructions);
    }

    /// The interpreter has executed one instruction that KVM gave up on.
    pub(super) fn gave_up(&mut self, on: &GivesUp, bits: u32) {
        let mut decoder = Decoder::new(bits, &on.code[..on.len], DecoderOptions::NONE);
        let name = if on.len == 0 {
            String::new()
        } else {
            format!(": {:?}", decoder.decode().mnemonic()).to_lowercase()
        };
        self.interpreted(&format!("{}{name}", on.why), 1);
    }

    pub(super) fn add(&mut self, name: &str, count: u64) {
        match self.by_name.get_mut(name) {
            Some(sum) => *sum += count,
            None => drop(self.by_name.insert(name.to_owned(), count)),
        }
    }

    /// All counts that are not zero, with their names.
    pub(super) fn all(&self) -> Vec<(String, u64)> {
        let exits = EXITS.iter().zip(self.exits).map(|(name, n)| (format!("exit: {name}"), n));
        let named = self.by_name.iter().map(|(name, n)| (name.clone(), *n));
        exits.chain(named).filter(|(_, n)| *n > 0).collect()
    }
}
