//! KVM on hosts that have none.

use std::sync::{Arc, Mutex};

use brolga_cpu::core::Core;
use brolga_cpu::cpuid::CpuModel;

use super::{KvmError, Make};
use crate::board::Chipset;

/// This host's KVM, which there is not.
#[derive(Debug)]
pub enum Host {}

impl Host {
    /// Fails.
    pub fn open() -> Result<Self, KvmError> {
        Err(KvmError::OtherHost)
    }

    /// The time-stamp counter of guests, if it cannot be set.
    pub fn fixed_tsc(&self) -> Result<Option<u64>, KvmError> {
        match *self {}
    }

    /// What guests will miss.
    pub fn shortcoming(&self) -> Option<&'static str> {
        match *self {}
    }

    /// The processor that KVM can give to a guest that was to have `model`.
    pub fn adapt(&self, model: CpuModel) -> Result<(CpuModel, Vec<String>), KvmError> {
        let _ = model;
        match *self {}
    }

    pub(super) fn prepare(
        &self,
        _: &Core,
        _: bool,
        _: Option<Arc<Mutex<Chipset>>>,
    ) -> Result<Make, KvmError> {
        match *self {}
    }
}
