//! What checks in all modes have in common: code with labels, and the list of what is checked.

use std::ops::{Deref, DerefMut};

use iced_x86::code_asm::*;

use super::features::Feature;
use super::{Check, Kind};
use crate::rom::{Emit, Placed, Section, emit};

/// Checks being written.
pub(super) struct Script<'s, 'rom> {
    section: &'s mut Section<'rom>,
    /// Where labels lie; the code is written twice, and the first time nobody knows.
    placed: Option<&'s Placed>,
    checks: Vec<Check>,
    needs: Vec<Feature>,
    labels: u32,
}

/// A case of a matrix: its name, the value that it should report, and which bits of that count.
pub(super) type Case = (String, u64, u64);

impl<'rom> Deref for Script<'_, 'rom> {
    type Target = Section<'rom>;
    fn deref(&self) -> &Section<'rom> {
        self.section
    }
}

impl DerefMut for Script<'_, '_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.section
    }
}

impl<'s, 'rom> Script<'s, 'rom> {
    pub(super) fn new(section: &'s mut Section<'rom>, placed: Option<&'s Placed>) -> Self {
        Self { section, placed, checks: Vec::new(), needs: Vec::new(), labels: 0 }
    }

    /// The address of a label, for an operand of 32 bits.
    pub(super) fn address_of(&self, label: &str) -> u32 {
        self.placed.map_or(0, |placed| placed.address_of(label))
    }

    /// A label that nobody else has.
    pub(super) fn fresh(&mut self, what: &str) -> String {
        self.labels += 1;
        format!("{what}_{}", self.labels)
    }

    /// Checks from here on need `features`, and no others.
    pub(super) fn need(&mut self, features: &[Feature]) {
        self.needs = features.to_vec();
    }

    /// Adds a check whose value the caller reports.
    pub(super) fn note(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        [expected, mask]: [u64; 2],
        kind: Kind,
    ) {
        let needs = self.needs.clone();
        self.checks.push(Check { name: name.into(), source, expected, mask, kind, needs });
    }

    /// Adds a check and reports its value, which is in EAX or RAX.
    pub(super) fn report(
        &mut self,
        name: impl Into<String>,
        source: &'static str,
        accepted: [u64; 2],
        kind: Kind,
    ) -> Emit {
        self.note(name, source, accepted, kind);
        emit!(self; call -> "report";);
        Ok(())
    }

    /// Adds the checks of a matrix, and returns how many there are.
    pub(super) fn note_all(
        &mut self,
        source: &'static str,
        kind: Kind,
        cases: impl IntoIterator<Item = Case>,
    ) -> u32 {
        let first = self.checks.len();
        for (name, expected, mask) in cases {
            self.note(name, source, [expected, mask], kind);
        }
        (self.checks.len() - first) as u32
    }

    /// All checks.
    pub(super) fn into_checks(self) -> Vec<Check> {
        self.checks
    }
}

/// A check's name: `start`, and the words of what is set.
pub(super) fn with_set(start: String, list: &[(bool, &str)]) -> String {
    list.iter().filter(|(set, _)| *set).fold(start, |name, (_, what)| name + what)
}

/// Ends the ROM: a 0 at the exit port.
pub(super) fn emit_end(a: &mut Section<'_>) -> Emit {
    emit!(a;
        xor(eax, eax);
        mov(edx, 0xf4);
        out(dx, eax);
        at("stop");
        cli();
        hlt();
        jmp -> "stop";
    );
    Ok(())
}
