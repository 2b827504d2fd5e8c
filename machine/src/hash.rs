//! A hash of everything that a guest could tell two machines apart by.

use brolga_cpu::flags::LazyFlags;
use brolga_devices::VmTime;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::board::{ChipsetSaved, lock};
use crate::machine::Machine;

/// Bytes of RAM hashed at a time.
const CHUNK: usize = 1 << 16;

impl Machine {
    /// The hash of registers, RAM, chips and the clock, as 32 hexadecimal digits. It depends on
    /// the architectural state only, not on how an engine keeps it.
    pub fn state_hash(&self) -> String {
        let mut hash = Xxh3::new();
        let mut vcpu = self.core().vcpu.clone();
        vcpu.flags = LazyFlags::from_rflags(vcpu.rflags());
        add(&mut hash, &vcpu);
        add(&mut hash, &self.chips());
        let ram = self.map().ram();
        let mut chunk = vec![0; CHUNK];
        let mut offset = 0;
        while offset < ram.len() {
            let len = (ram.len() - offset).min(CHUNK as u64);
            let chunk = &mut chunk[..len as usize];
            if ram.read_bytes(offset, chunk).is_ok() {
                hash.update(chunk);
            }
            offset += len;
        }
        format!("{:032x}", hash.digest128())
    }

    /// The time, and the state of the chips at it.
    pub(crate) fn chips(&self) -> (VmTime, ChipsetSaved) {
        let mut chips = lock(&self.chipset);
        let now = chips.now(self.retired());
        chips.advance(now);
        (now, chips.saved())
    }
}

/// Adds a value in a form that depends on its fields and their order only.
fn add(hash: &mut Xxh3, value: &impl Serialize) {
    let encoded = serde_json::to_vec(value).expect("plain data is always encodable");
    hash.update(&encoded);
}
