//! The memory types that firmware leaves in the MTRRs (SDM vol. 3A, 11.11).

use brolga_cpu::vcpu::SystemRegs;

use super::memory::{HIGH_RAM_BASE, LOW_RAM_END};

const UNCACHEABLE: u64 = 0;
const WRITE_PROTECTED: u64 = 5;
const WRITE_BACK: u64 = 6;

/// IA32_MTRR_DEF_TYPE: the variable ranges count (E), and so do the fixed ones (FE).
const ENABLED: u64 = 1 << 11 | 1 << 10;
/// IA32_MTRR_PHYSMASKn: the range is valid.
const VALID: u64 = 1 << 11;

/// Sets the MTRRs: memory is write-back, the PCI hole below 4 GiB and the VGA window are
/// uncacheable, and the firmware's shadow is write-protected.
pub fn set_mtrrs(sys: &mut SystemRegs, physical_bits: u8) {
    let address_bits = (1 << physical_bits) - 1;
    let hole = HIGH_RAM_BASE - LOW_RAM_END;
    sys.mtrr_def_type = ENABLED | WRITE_BACK;
    sys.mtrr_var = Default::default();
    sys.mtrr_var[0] = (LOW_RAM_END | UNCACHEABLE, !(hole - 1) & address_bits | VALID);
    // 64 KiB steps to 512 KiB and 16 KiB steps to 640 KiB; the window; 4 KiB steps to 1 MiB.
    let (conventional, window, shadow) = (0..2, 2, 3..11);
    sys.mtrr_fixed[conventional].fill(eight(WRITE_BACK));
    sys.mtrr_fixed[window] = eight(UNCACHEABLE);
    sys.mtrr_fixed[shadow].fill(eight(WRITE_PROTECTED));
}

/// A fixed-range MTRR holds the types of eight ranges.
fn eight(kind: u64) -> u64 {
    kind * 0x0101_0101_0101_0101
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The type of an address by the rules of 11.11.4.1, for one that no two ranges share.
    fn type_of(sys: &SystemRegs, at: u64) -> u64 {
        let fixed = |register: usize, step: u64| sys.mtrr_fixed[register] >> (8 * step) & 0xff;
        match at {
            ..0x8_0000 => fixed(0, at >> 16),
            0x8_0000..0xc_0000 => fixed(1 + ((at - 0x8_0000) >> 17) as usize, at >> 14 & 7),
            0xc_0000..0x10_0000 => fixed(3 + ((at - 0xc_0000) >> 15) as usize, at >> 12 & 7),
            _ => {
                let covers = |&&(base, mask): &&(u64, u64)| {
                    let mask_bits = mask & !0xfff;
                    mask & VALID != 0 && at & mask_bits == base & mask_bits
                };
                let range = sys.mtrr_var.iter().find(covers);
                range.map_or(sys.mtrr_def_type & 0xff, |(base, _)| base & 0xff)
            }
        }
    }

    #[test]
    fn ram_is_write_back_and_devices_are_uncacheable() {
        let mut sys = SystemRegs::default();
        set_mtrrs(&mut sys, 36);
        assert_eq!(sys.mtrr_def_type, 0xc06);
        let expected = [
            (0, WRITE_BACK),
            (0x9_ffff, WRITE_BACK),
            (0xa_0000, UNCACHEABLE),
            (0xb_ffff, UNCACHEABLE),
            (0xc_0000, WRITE_PROTECTED),
            (0xf_ffff, WRITE_PROTECTED),
            (0x10_0000, WRITE_BACK),
            (0xbfff_ffff, WRITE_BACK),
            (0xc000_0000, UNCACHEABLE),
            (0xfee0_0000, UNCACHEABLE),
            (0xffff_ffff, UNCACHEABLE),
            (0x1_0000_0000, WRITE_BACK),
            (0x1_c000_0000, WRITE_BACK),
        ];
        for (at, kind) in expected {
            assert_eq!(type_of(&sys, at), kind, "{at:#x}");
        }
    }

    #[test]
    fn no_reserved_bit_is_set() {
        for physical_bits in [32, 36, 52] {
            let mut sys = SystemRegs::default();
            set_mtrrs(&mut sys, physical_bits);
            let (base, mask) = sys.mtrr_var[0];
            assert_eq!(base >> physical_bits, 0, "{base:#x}");
            assert_eq!(mask >> physical_bits, 0, "{mask:#x}");
        }
    }
}
