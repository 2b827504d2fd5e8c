//! What a file is that no loader takes, so that the refusal can say so.

use super::LoadError;
use super::fields::Fields;

/// Formats that compress a file as a whole, by the bytes they begin with.
const COMPRESSED: [(&[u8], &str); 8] = [
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x02\x21\x4c\x18", "lz4"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\x00\x00", "lzma"),
    (b"\x89LZO\0", "lzo"),
];

/// Images for other machines or other loaders: where their magic is, what it is, what they are.
const FOREIGN: [(u64, &[u8], &str); 9] = [
    (0x38, b"ARM\x64", "an arm64 Linux Image"),
    (0x24, b"\x18\x28\x6f\x01", "an arm Linux zImage"),
    (0x30, b"RISCV\0\0\0", "a RISC-V Linux Image"),
    (0, b"\x27\x05\x19\x56", "a U-Boot uImage"),
    (0, b"\xd0\x0d\xfe\xed", "a device tree or U-Boot FIT image"),
    (0, b"\xcf\xfa\xed\xfe", "a Mach-O executable"),
    (0, b"QFI\xfb", "a qcow2 disk image"),
    (0x8001, b"CD001", "a CD image"),
    (0, b"MZ", "an EFI or DOS executable (or the beginning of a bzImage)"),
];

/// The refusal of a file without a known way in.
pub(super) fn explain(bytes: &[u8]) -> LoadError {
    if let Some((_, format)) = COMPRESSED.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return LoadError::Compressed { format };
    }
    let magic_is = |at: u64, magic: &[u8]| bytes.bytes_at(at, magic.len() as u64) == Some(magic);
    match FOREIGN.iter().find(|(at, magic, _)| magic_is(*at, magic)) {
        Some((_, _, what)) => LoadError::Foreign { what: (*what).to_owned() },
        None => LoadError::Unrecognised,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loader::testing::{Pc, put};

    #[test]
    fn compressed_data_is_named() {
        let pc = Pc::new(1 << 20);
        for (magic, format) in COMPRESSED {
            let mut bytes = magic.to_vec();
            bytes.extend([0x55; 100]);
            assert!(pc.refusal(&bytes).contains(format), "{format} was not recognised");
        }
    }

    #[test]
    fn foreign_images_are_named() {
        let pc = Pc::new(1 << 20);
        for (at, magic, what) in FOREIGN {
            let mut bytes = vec![0x55; 0x9000];
            put(&mut bytes, at as usize, magic);
            assert!(pc.refusal(&bytes).contains(what), "{what} was not recognised");
        }
    }

    #[test]
    fn an_arm64_image_with_an_efi_stub_is_named_as_such() {
        let mut bytes = vec![0; 4096];
        put(&mut bytes, 0, b"MZ");
        put(&mut bytes, 0x38, b"ARM\x64");
        assert!(Pc::new(1 << 20).refusal(&bytes).contains("arm64"));
    }
}
