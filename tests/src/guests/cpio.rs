//! The "newc" cpio archive that the Linux kernel unpacks as its initial root.
//!
//! Format: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. Each entry is
//! a header of ASCII hexadecimal fields, the NUL-terminated name, and the data; name and data
//! are each padded to four bytes. An entry named `TRAILER!!!` ends the archive.

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";

const S_IFDIR: u32 = 0o040000;
const S_IFCHR: u32 = 0o020000;
const S_IFREG: u32 = 0o100000;
const S_IFLNK: u32 = 0o120000;

/// An archive under construction. Entries belong to root and carry no time stamps, so that
/// the same content always gives the same bytes.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; parents must come before what they hold.
    pub(super) fn directory(&mut self, name: &str, permissions: u32) {
        self.entry(name, S_IFDIR | permissions, (0, 0), &[]);
    }

    /// Adds a regular file.
    pub(super) fn file(&mut self, name: &str, permissions: u32, data: &[u8]) {
        self.entry(name, S_IFREG | permissions, (0, 0), data);
    }

    /// Adds a symbolic link `name` to `target`.
    pub(super) fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, S_IFLNK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(super) fn char_device(&mut self, name: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(name, S_IFCHR | permissions, (major, minor), &[]);
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        let inode = self.entries;
        self.entries += 1;
        let size = u32::try_from(data.len()).expect("an initramfs file is below 4 GiB");
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2),
        // device of the node (2), length of the name, checksum (unused in "newc").
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_laid_out_as_the_kernel_documents_it() {
        let mut archive = Archive::default();
        archive.file("abc", 0o644, b"hello");
        let bytes = archive.finish();
        let expected_header = concat!(
            "070701", "00000000", "000081a4", "00000000", "00000000", "00000001", "00000000",
            "00000005", "00000000", "00000000", "00000000", "00000000", "00000004", "00000000",
        );
        assert_eq!(&bytes[..110], expected_header.as_bytes());
        // 110 bytes of header and 4 of name end at 114: two bytes of padding.
        assert_eq!(&bytes[110..116], b"abc\0\0\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[124 + 110..124 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn device_numbers_and_links_go_where_they_belong() {
        let mut archive = Archive::default();
        archive.char_device("console", 0o600, 5, 1);
        archive.symlink("sh", "busybox");
        let bytes = archive.finish();
        let field = |entry: usize, index: usize| {
            let at = entry + 6 + index * 8;
            std::str::from_utf8(&bytes[at..at + 8]).unwrap()
        };
        assert_eq!((field(0, 1), field(0, 9), field(0, 10)), ("00002180", "00000005", "00000001"));
        let link = (110 + 8_usize).next_multiple_of(4);
        assert_eq!(
            (field(link, 0), field(link, 1), field(link, 6)),
            ("00000001", "0000a1ff", "00000007")
        );
    }
}
