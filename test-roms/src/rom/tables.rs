//! Descriptors and table registers, as bytes.

/// A code segment descriptor (SDM vol. 3A §3.4.5): present, ring 0, readable and already accessed,
/// so that loading it never writes to the table.
pub const CODE: u8 = 0x9B;
/// A writable data segment descriptor: present, ring 0, already accessed.
pub const DATA: u8 = 0x93;
/// An available 64-bit TSS.
pub const TSS64: u8 = 0x89;

/// G: the limit counts pages.
pub const PAGES: u8 = 0x8;
/// D/B: 32-bit default sizes.
pub const SIZE32: u8 = 0x4;
/// L: 64-bit code.
pub const LONG: u8 = 0x2;

/// A segment descriptor; `limit` is the 20-bit field.
pub const fn segment(base: u32, limit: u32, access: u8, flags: u8) -> u64 {
    (limit & 0xFFFF) as u64
        | ((base & 0xFF_FFFF) as u64) << 16
        | (access as u64) << 40
        | ((limit >> 16 & 0xF) as u64) << 48
        | (flags as u64) << 52
        | ((base >> 24) as u64) << 56
}

/// A 64-bit interrupt gate (SDM vol. 3A §7.14.1), ring 0, on stack `ist` of the TSS or, if 0, on
/// the interrupted one.
pub const fn interrupt_gate(selector: u16, offset: u64, ist: u8) -> [u64; 2] {
    let low = (offset & 0xFFFF)
        | (selector as u64) << 16
        | (ist as u64) << 32
        | 0x8E << 40
        | (offset >> 16 & 0xFFFF) << 48;
    [low, offset >> 32]
}

/// The memory operand of LGDT and LIDT: 10 bytes, of which the 16- and 32-bit forms read six.
pub fn table_register(base: u64, size: usize) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..2].copy_from_slice(&(size as u16).wrapping_sub(1).to_le_bytes());
    bytes[2..].copy_from_slice(&base.to_le_bytes());
    bytes
}

/// A table's entries as bytes.
pub fn bytes(entries: &[u64]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_segments_have_their_well_known_encodings() {
        assert_eq!(segment(0, 0xF_FFFF, CODE, PAGES | SIZE32), 0x00CF_9B00_0000_FFFF);
        assert_eq!(segment(0, 0xF_FFFF, DATA, PAGES | SIZE32), 0x00CF_9300_0000_FFFF);
        assert_eq!(segment(0x1234_5678, 0x9_ABCD, 0x89, 0), 0x1209_8934_5678_ABCD);
    }

    #[test]
    fn a_gate_spreads_its_offset() {
        let gate = interrupt_gate(0x18, 0x1122_3344_5566_7788, 1);
        assert_eq!(gate, [0x5566_8E01_0018_7788, 0x1122_3344]);
    }

    #[test]
    fn a_table_register_holds_size_minus_one() {
        let register = table_register(0x2000, 0x1000);
        assert_eq!(register, [0xFF, 0x0F, 0x00, 0x20, 0, 0, 0, 0, 0, 0]);
    }
}
