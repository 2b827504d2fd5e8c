//! Little-endian fields of files: whatever lies outside the file is `None`.

/// Reads fields at byte offsets.
pub(super) trait Fields {
    /// `len` bytes.
    fn bytes_at(&self, at: u64, len: u64) -> Option<&[u8]>;

    /// A 16-bit field.
    fn u16_at(&self, at: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.bytes_at(at, 2)?.try_into().ok()?))
    }

    /// A 32-bit field.
    fn u32_at(&self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.bytes_at(at, 4)?.try_into().ok()?))
    }

    /// A 64-bit field.
    fn u64_at(&self, at: u64) -> Option<u64> {
        Some(u64::from_le_bytes(self.bytes_at(at, 8)?.try_into().ok()?))
    }
}

impl Fields for [u8] {
    fn bytes_at(&self, at: u64, len: u64) -> Option<&[u8]> {
        let start = usize::try_from(at).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.get(start..end)
    }
}
