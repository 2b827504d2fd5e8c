//! Where things lie, the same in the host's process and in the guest: a reserved region below
//! 2 GiB, so that 32-bit addresses and displacements reach it.

/// The region; whatever is not named here faults.
pub const REGION: u64 = 0x2000_0000;
/// Its length: one page table.
pub const REGION_LEN: u64 = 0x20_0000;
/// Memory that instructions work on. What the forms of address reach below it is reserved.
pub const SCRATCH: u64 = REGION + 0x9_0000;
/// Its length.
pub const SCRATCH_LEN: usize = 0x2000;
/// The page with the instruction (and, on the host, the code around it).
pub const CODE: u64 = REGION + 0x1e_0000;
/// The instruction.
pub const INSTRUCTION: u64 = CODE + 0x800;
/// The host's page of register images.
pub const FRAME: u64 = CODE + 0x1000;
/// The guest's own tables and handlers.
pub const SYSTEM: u64 = REGION + 0x1f_0000;
