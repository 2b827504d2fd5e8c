//! Addresses and access widths.

use std::fmt;

use serde::{Deserialize, Serialize};

/// log2 of [`PAGE_SIZE`].
pub const PAGE_BITS: u32 = 12;
/// The size of the smallest page, in bytes.
pub const PAGE_SIZE: u64 = 1 << PAGE_BITS;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number of the 4 KiB page that holds the address.
            #[inline(always)]
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_BITS
            }

            /// The offset of the address in its page.
            #[inline(always)]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The first address of the page.
            #[inline(always)]
            pub const fn page_base(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// The address `bytes` further on, modulo 2^64.
            #[inline(always)]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// An address as the guest's memory bus sees it: the result of paging, before A20.
    GuestPhys
}
address! {
    /// An address after segmentation and before paging (SDM vol. 3A, 3.1).
    Linear
}

/// The width of an integer access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Width {
    /// One byte.
    W8,
    /// Two bytes.
    W16,
    /// Four bytes.
    W32,
    /// Eight bytes.
    W64,
}

impl Width {
    /// The width in bytes.
    #[inline(always)]
    pub const fn bytes(self) -> u64 {
        1 << self as u32
    }

    /// The width in bits.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        8 << self as u32
    }

    /// All bits of a value of this width.
    #[inline(always)]
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The most significant bit of a value of this width.
    #[inline(always)]
    pub const fn sign_bit(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// The width of `bytes` bytes, if there is one.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::W8),
            2 => Some(Self::W16),
            4 => Some(Self::W32),
            8 => Some(Self::W64),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_parts() {
        let a = Linear(0xffff_ffff_8123_4567);
        assert_eq!(a.page_number(), 0xf_ffff_fff8_1234);
        assert_eq!(a.page_offset(), 0x567);
        assert_eq!(a.page_base(), Linear(0xffff_ffff_8123_4000));
        assert_eq!(Linear(u64::MAX).wrapping_add(2), Linear(1));
        assert_eq!(format!("{a} {:?}", GuestPhys(16)), "0xffffffff81234567 GuestPhys(0x10)");
    }

    #[test]
    fn widths() {
        for (w, bytes, mask, sign) in [
            (Width::W8, 1, 0xff, 0x80),
            (Width::W16, 2, 0xffff, 0x8000),
            (Width::W32, 4, 0xffff_ffff, 0x8000_0000),
            (Width::W64, 8, u64::MAX, 1 << 63),
        ] {
            assert_eq!((w.bytes(), w.mask(), w.sign_bit()), (bytes, mask, sign));
            assert_eq!(u64::from(w.bits()), bytes * 8);
            assert_eq!(Width::from_bytes(bytes), Some(w));
        }
        assert_eq!(Width::from_bytes(3), None);
    }
}
