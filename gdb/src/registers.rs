//! The register file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of the general registers, in encoding order.
pub const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Names of the segment registers, in encoding order.
pub const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// The flags of RFLAGS that reports name, from the highest.
const FLAGS: [(u32, &str); 16] = [
    (21, "ID"),
    (20, "VIP"),
    (19, "VIF"),
    (18, "AC"),
    (17, "VM"),
    (16, "RF"),
    (14, "NT"),
    (11, "OF"),
    (10, "DF"),
    (9, "IF"),
    (8, "TF"),
    (7, "SF"),
    (6, "ZF"),
    (4, "AF"),
    (2, "PF"),
    (0, "CF"),
];

/// A segment register with what it was loaded from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRegister {
    /// The visible part.
    pub selector: u16,
    /// Linear address of offset 0.
    pub base: u64,
    /// The highest offset, in bytes.
    pub limit: u32,
    /// Access rights: bytes 5 and 6 of the descriptor.
    pub attributes: u16,
    /// Whether an access through it can succeed.
    pub usable: bool,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u16,
}

/// The registers of a CPU that a debugger shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// RAX to R15, in encoding order.
    pub general: [u64; 16],
    /// The instruction pointer: an offset in CS.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentRegister; 6],
    /// The local descriptor table.
    pub ldtr: SegmentRegister,
    /// The task register.
    pub tr: SegmentRegister,
    /// The global descriptor table.
    pub gdtr: TableRegister,
    /// The interrupt descriptor table.
    pub idtr: TableRegister,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 2.
    pub cr2: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// The task priority.
    pub cr8: u64,
    /// The EFER MSR.
    pub efer: u64,
    /// The breakpoint addresses.
    pub dr: [u64; 4],
    /// Debug status.
    pub dr6: u64,
    /// Debug control.
    pub dr7: u64,
    /// The privilege level.
    pub cpl: u8,
}

impl Registers {
    /// Whether the CPU is in 64-bit mode: IA-32e mode and CS.L.
    pub fn is_64_bit(&self) -> bool {
        const LMA: u64 = 1 << 10;
        const L: u16 = 1 << 13;
        self.efer & LMA != 0 && self.segments[1].attributes & L != 0
    }

    /// The default operand size of the code that runs, in bits.
    pub fn code_bits(&self) -> u32 {
        const DB: u16 = 1 << 14;
        match self.segments[1].attributes & DB {
            _ if self.is_64_bit() => 64,
            0 => 16,
            _ => 32,
        }
    }

    /// The linear address of the instruction at RIP.
    pub fn linear_rip(&self) -> u64 {
        if self.is_64_bit() {
            self.rip
        } else {
            self.segments[1].base.wrapping_add(self.rip) & 0xffff_ffff
        }
    }

    /// The names of the flags that are set.
    pub fn flag_names(&self) -> String {
        let set = FLAGS.iter().filter(|(bit, _)| self.rflags >> bit & 1 != 0);
        set.map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wide = self.is_64_bit();
        let (digits, count, columns) = if wide { (16, 16, 4) } else { (8, 8, 4) };
        for (row, names) in GENERAL[..count].chunks(columns).enumerate() {
            for (column, name) in names.iter().enumerate() {
                let value = self.general[row * columns + column];
                let gap = if column == 0 { "" } else { "  " };
                write!(f, "{gap}{:>3} {value:0digits$x}", name)?;
            }
            writeln!(f)?;
        }
        let (rip, rflags, names) = (self.rip, self.rflags, self.flag_names());
        writeln!(f, "rip {rip:0digits$x}  rflags {rflags:08x} [{names}]  cpl {}", self.cpl)?;
        let named = SEGMENTS.iter().zip(&self.segments);
        let rest = [("ldt", &self.ldtr), ("tr", &self.tr)];
        for (name, segment) in named.map(|(name, segment)| (*name, segment)).chain(rest) {
            writeln!(f, "{name:>3} {segment}")?;
        }
        writeln!(f, "gdt {:016x} limit {:04x}", self.gdtr.base, self.gdtr.limit)?;
        writeln!(f, "idt {:016x} limit {:04x}", self.idtr.base, self.idtr.limit)?;
        let Self { cr0, cr2, cr3, cr4, cr8, efer, .. } = self;
        writeln!(f, "cr0 {cr0:08x}  cr2 {cr2:016x}  cr3 {cr3:016x}  cr4 {cr4:08x}  cr8 {cr8:x}")?;
        write!(f, "efer {efer:08x}  dr6 {:08x}  dr7 {:08x}", self.dr6, self.dr7)
    }
}

impl fmt::Display for SegmentRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { selector, base, limit, attributes, usable } = self;
        write!(f, "{selector:04x} base {base:016x} limit {limit:08x} attr {attributes:04x}")?;
        if *usable { Ok(()) } else { f.write_str(" (unusable)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_mode(attributes: u16, efer: u64) -> Registers {
        let mut registers = Registers { efer, rip: 0x10, ..Registers::default() };
        registers.segments[1] =
            SegmentRegister { attributes, base: 0xf_fff8, ..Default::default() };
        registers
    }

    #[test]
    fn the_code_size_and_address_follow_cs_and_efer() {
        assert_eq!(in_mode(0x009b, 0).code_bits(), 16);
        assert_eq!(in_mode(0x409b, 0).code_bits(), 32);
        assert_eq!(in_mode(0x209b, 0x500).code_bits(), 64);
        assert_eq!(in_mode(0x209b, 0).code_bits(), 16, "L means nothing outside IA-32e mode");
        assert_eq!(in_mode(0x409b, 0).linear_rip(), 0x10_0008);
        assert_eq!(in_mode(0x209b, 0x500).linear_rip(), 0x10);
    }

    #[test]
    fn flags_are_named_from_the_highest() {
        let registers = Registers { rflags: 0x246, ..Registers::default() };
        assert_eq!(registers.flag_names(), "IF ZF PF");
    }

    #[test]
    fn the_text_shows_every_general_register_of_the_mode() {
        let text = in_mode(0x209b, 0x500).to_string();
        assert!(GENERAL.iter().all(|name| text.contains(name)), "{text}");
        assert!(!in_mode(0x409b, 0).to_string().contains("r15"));
    }
}
