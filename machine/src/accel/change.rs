//! A change of the accelerator while the guest runs.

use std::collections::BTreeMap;

use brolga_devices::VmTime;

use super::{AccelKind, Change, EngineError, EngineSpec, KvmError, Moment, Surroundings};
use crate::board::lock;
use crate::clock::ClockKind;
use crate::exit::End;
use crate::machine::Machine;

impl Machine {
    /// What the machine changes its accelerator to, and when, in this order.
    pub fn set_changes(&mut self, changes: Vec<Change>) {
        self.changes = changes.into();
    }

    /// Sets the vCPU's time-stamp counter, whatever the guest has added to it: where KVM cannot set
    /// the one that the guest reads, all accelerators have that.
    pub(crate) fn set_tsc(&mut self, ticks: u64) {
        let core = self.accel.core_mut();
        let shown = core.tsc().wrapping_sub(core.vcpu.sys.tsc_offset);
        let mut chips = lock(&self.chipset);
        chips.tsc_start = chips.tsc_start.wrapping_add(ticks.wrapping_sub(shown));
    }

    /// Has another accelerator go on with the guest. If there is no such accelerator, the machine is
    /// as before.
    pub fn change_accelerator(&mut self, kind: AccelKind) -> Result<(), EngineError> {
        let virtual_time = lock(&self.chipset).clock.kind() == ClockKind::Virtual;
        if kind == AccelKind::Kvm && virtual_time {
            return Err(KvmError::VirtualClock.into());
        }
        self.accel.settle();
        let spec = EngineSpec { kind, ..self.engine.clone() };
        let around = Surroundings { kvm: self.kvm.as_deref(), chips: Some(&self.chipset) };
        let make = spec.prepare(self.accel.core(), around)?;
        self.past_counts.extend(self.accel.counts());
        self.accel = make(self.accel.hand_over());
        self.engine = spec;
        self.next_look = 0;
        Ok(())
    }

    /// Makes the next change of the plan if its moment has come.
    pub(crate) fn follow_plan(&mut self) -> Result<(), End> {
        let Some(change) = self.changes.front() else { return Ok(()) };
        let is_due = match change.at {
            Moment::Instructions(count) => self.retired() >= count,
            Moment::Time(time) => {
                let now = lock(&self.chipset).now(self.retired());
                VmTime(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)) <= now
            }
        };
        match self.changes.pop_front_if(|_| is_due) {
            Some(change) => self
                .change_accelerator(change.kind)
                .map_err(|error| End::HostError { message: error.to_string() }),
            None => Ok(()),
        }
    }

    /// The instructions that may be executed before the plan's next change.
    pub(crate) fn instructions_to_change(&self) -> u64 {
        match self.changes.front().map(|change| change.at) {
            Some(Moment::Instructions(count)) => count.saturating_sub(self.retired()).max(1),
            _ => u64::MAX,
        }
    }

    /// What the accelerators have done, by name and in the order of names.
    pub fn counts(&self) -> Vec<(String, u64)> {
        let mut sums = BTreeMap::new();
        for (name, count) in self.past_counts.iter().cloned().chain(self.accel.counts()) {
            *sums.entry(name).or_insert(0) += count;
        }
        sums.into_iter().collect()
    }
}
