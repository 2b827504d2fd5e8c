//! Building a ROM image: sections of 16-, 32- and 64-bit code, a pool of constants, the reset
//! vector.
//!
//! The image is 64 KiB and ends at 4 GiB, where the processor starts (FFFFFFF0, SDM vol. 3A
//! §10.1.4), and is mirrored at F0000-FFFFF. Offsets are the same in both, so code of any mode
//! can run in place, or from a copy in RAM: a section is linked at `base` + its offset.
//!
//! ```text
//! 0000  constants: texts and tables ([`RomBuilder::constant`], [`RomBuilder::reserve`])
//! 8000  code, section after section
//! FFF0  reset vector: a far jump to the real-mode entry
//! ```

mod section;
pub mod tables;

use std::collections::HashMap;

use iced_x86::IcedError;

pub(crate) use section::emit;
pub use section::{Placed, Section};

/// The size of an image.
pub const ROM_SIZE: usize = 0x1_0000;
/// The real-mode segment of the mirror below 1 MiB.
pub const ROM_SEGMENT: u16 = 0xF000;
/// The linear address of the mirror below 1 MiB.
pub const ROM_BASE: u32 = 0xF_0000;
/// The offset of the first instruction that a processor executes.
pub const RESET_VECTOR: usize = ROM_SIZE - 16;

const CODE_START: usize = 0x8000;

/// The result of everything that emits instructions.
pub type Emit<T = ()> = Result<T, IcedError>;

/// The operating mode, hence the default sizes, that a section's code is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit code: real mode, or a 16-bit protected-mode segment.
    Bits16,
    /// 32-bit protected or compatibility mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl Mode {
    fn bitness(self) -> u32 {
        match self {
            Mode::Bits16 => 16,
            Mode::Bits32 => 32,
            Mode::Bits64 => 64,
        }
    }
}

/// A ROM image under construction.
///
/// A section can refer to the constants and to the sections placed before it; stages are therefore
/// placed in the reverse order of their execution.
///
/// # Panics
///
/// Its methods panic where the image would be wrong: out of space, or a label that is used but
/// never bound.
pub struct RomBuilder {
    image: Vec<u8>,
    pool_end: usize,
    code_end: usize,
    constants: HashMap<Vec<u8>, usize>,
}

impl Default for RomBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RomBuilder {
    /// An empty image, filled with the erased state of a flash chip.
    pub fn new() -> Self {
        Self {
            image: vec![0xFF; ROM_SIZE],
            pool_end: 0,
            code_end: CODE_START,
            constants: HashMap::new(),
        }
    }

    /// Places `bytes`, once however often it is asked for, and returns their offset.
    pub fn constant(&mut self, bytes: &[u8]) -> u32 {
        if let Some(&offset) = self.constants.get(bytes) {
            return offset as u32;
        }
        let offset = self.reserve(bytes.len());
        self.fill(offset, bytes);
        self.constants.insert(bytes.to_vec(), offset as usize);
        offset
    }

    /// Sets space aside for constants that are only known later; see [`fill`](Self::fill).
    pub fn reserve(&mut self, size: usize) -> u32 {
        let offset = self.pool_end.next_multiple_of(8);
        self.pool_end = offset + size;
        assert!(self.pool_end <= CODE_START, "the ROM's constants outgrow their space");
        offset as u32
    }

    /// Writes `bytes` into space from [`reserve`](Self::reserve).
    pub fn fill(&mut self, offset: u32, bytes: &[u8]) {
        let start = offset as usize;
        assert!(start + bytes.len() <= self.pool_end, "constants are filled in reserved space");
        self.image[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// Assembles a section and places it after the sections before it.
    ///
    /// `base` is the address of the image's first byte as the code sees it: 0 for code that runs
    /// in segment F000, [`ROM_BASE`] for flat code that runs in place, or the address of the copy
    /// in RAM that the code runs from.
    pub fn section(
        &mut self,
        mode: Mode,
        base: u32,
        write: impl FnOnce(&mut Section<'_>) -> Emit,
    ) -> Emit<Placed> {
        let offset = self.code_end.next_multiple_of(16);
        let mut section = Section::new(self, mode, base)?;
        write(&mut section)?;
        let (code, placed) = section.assemble(base + offset as u32)?;
        self.code_end = offset + code.len();
        assert!(self.code_end <= RESET_VECTOR, "the ROM's code outgrows the image");
        self.image[offset..self.code_end].copy_from_slice(&code);
        Ok(placed)
    }

    /// Writes the reset vector, a far jump to `entry` in segment F000, and returns the image.
    pub fn finish(mut self, entry: u16) -> Vec<u8> {
        let [offset_low, offset_high] = entry.to_le_bytes();
        let [segment_low, segment_high] = ROM_SEGMENT.to_le_bytes();
        // JMP ptr16:16. It replaces the CS base FFFF0000 of reset by F0000: the mirror.
        let jump = [0xEA, offset_low, offset_high, segment_low, segment_high];
        self.image[RESET_VECTOR..RESET_VECTOR + jump.len()].copy_from_slice(&jump);
        self.image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::code_asm::*;

    #[test]
    fn constants_are_placed_once_and_aligned() {
        let mut rom = RomBuilder::new();
        let first = rom.constant(b"abc");
        let second = rom.constant(b"defg");
        assert_eq!(rom.constant(b"abc"), first);
        assert_eq!((first, second), (0, 8));
        let image = rom.finish(0);
        assert_eq!(&image[..12], b"abc\xFF\xFF\xFF\xFF\xFFdefg");
    }

    #[test]
    fn sections_are_linked_at_their_base_and_do_not_overlap() {
        let mut rom = RomBuilder::new();
        let flat = rom
            .section(Mode::Bits32, 0x1_0000, |a| {
                emit!(a; at("flat"); hlt(); at("end"););
                Ok(())
            })
            .unwrap();
        let real = rom
            .section(Mode::Bits16, 0, |a| {
                emit!(a; at("real"); jmp -> "real";);
                Ok(())
            })
            .unwrap();
        assert_eq!(flat.address_of("flat"), 0x1_8000);
        assert_eq!(flat.address_of("end"), 0x1_8001);
        assert_eq!(real.address_of("real"), 0x8010);
        let image = rom.finish(real.address_of("real") as u16);
        assert_eq!(image[0x8000], 0xF4);
        assert_eq!(&image[0x8010..0x8012], [0xEB, 0xFE]);
        assert_eq!(&image[RESET_VECTOR..RESET_VECTOR + 5], [0xEA, 0x10, 0x80, 0x00, 0xF0]);
    }

    #[test]
    fn local_labels_belong_to_the_label_before_them() {
        let mut rom = RomBuilder::new();
        let placed = rom
            .section(Mode::Bits64, 0, |a| {
                emit!(a;
                    at("one");
                    at(".again");
                    jmp -> ".again";
                    at("two");
                    jmp -> ".again";
                    at(".again");
                    lea(rax) -> "one.again";
                );
                Ok(())
            })
            .unwrap();
        assert_eq!(placed.address_of("one.again"), 0x8000);
        assert_eq!(placed.address_of("two.again"), 0x8004);
        let image = rom.finish(0);
        // JMP -2; JMP +0; LEA RAX, [RIP - 11].
        let code = [0xEB, 0xFE, 0xEB, 0x00, 0x48, 0x8D, 0x05, 0xF5, 0xFF, 0xFF, 0xFF];
        assert_eq!(&image[0x8000..0x800B], code);
    }

    #[test]
    #[should_panic(expected = "label nowhere is used but never bound")]
    fn an_unbound_label_is_refused() {
        let _ = RomBuilder::new().section(Mode::Bits16, 0, |a| {
            emit!(a; jmp -> "nowhere";);
            Ok(())
        });
    }

    #[test]
    #[should_panic(expected = "outgrow their space")]
    fn too_many_constants_are_refused() {
        RomBuilder::new().reserve(CODE_START + 1);
    }
}
