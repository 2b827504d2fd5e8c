//! The memory images of FSTENV, FSAVE and FXSAVE (SDM vol 1, 8.1.10 and 10.5.1).

use super::{CONTROL_ONES, CONTROL_WRITABLE, LastInstruction, X87};
use crate::softfloat::{F80, flag};

/// The four layouts of an environment, by operand size and mode. Virtual-8086 mode uses the
/// real-mode ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// 16-bit operands, real or virtual-8086 mode.
    Real16,
    /// 16-bit operands, protected mode.
    Protected16,
    /// 32-bit operands, real or virtual-8086 mode.
    Real32,
    /// 32-bit operands, protected or long mode.
    Protected32,
}

impl ImageFormat {
    fn is_wide(self) -> bool {
        matches!(self, Self::Real32 | Self::Protected32)
    }

    /// The size of an environment in bytes.
    pub fn environment_len(self) -> usize {
        if self.is_wide() { 28 } else { 14 }
    }

    /// The size of a saved state, environment and registers, in bytes.
    pub fn state_len(self) -> usize {
        self.environment_len() + 80
    }
}

/// An environment or whole state to be written to memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    bytes: [u8; 108],
    len: usize,
}

impl Image {
    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The seven fields of an environment.
type Fields = [u32; 7];

impl LastInstruction {
    /// The fields from the instruction pointer on, in the given layout.
    fn to_fields(self, format: ImageFormat) -> [u32; 4] {
        let (ip, dp) = (self.ip as u32, self.dp as u32);
        let (cs, ds, opcode) = (self.cs.into(), self.ds.into(), u32::from(self.opcode & 0x7FF));
        // Real-mode layouts hold linear addresses, split at bit 16.
        let linear = |segment: u32, offset: u32| (segment << 4).wrapping_add(offset);
        let (linear_ip, linear_dp) = (linear(cs, ip), linear(ds, dp));
        match format {
            ImageFormat::Protected16 => [ip, cs, dp, ds],
            ImageFormat::Protected32 => [ip, cs | opcode << 16, dp, ds | 0xFFFF_0000],
            ImageFormat::Real16 => {
                [linear_ip, linear_ip >> 4 & 0xF000 | opcode, linear_dp, linear_dp >> 4 & 0xF000]
            }
            ImageFormat::Real32 => [
                linear_ip & 0xFFFF | 0xFFFF_0000,
                linear_ip >> 4 & 0x0FFF_F000 | opcode,
                linear_dp & 0xFFFF | 0xFFFF_0000,
                linear_dp >> 4 & 0x0FFF_F000,
            ],
        }
    }

    /// The inverse of [`Self::to_fields`]; a linear address becomes an offset from segment 0.
    fn from_fields(fields: [u32; 4], format: ImageFormat) -> Self {
        let [ip, second, dp, fourth] = fields;
        let joined = |low: u32, high: u32| u64::from(low & 0xFFFF | (high & 0x0FFF_F000) << 4);
        match format {
            ImageFormat::Protected16 | ImageFormat::Protected32 => Self {
                opcode: (second >> 16) as u16 & 0x7FF,
                ip: ip.into(),
                cs: second as u16,
                dp: dp.into(),
                ds: fourth as u16,
            },
            ImageFormat::Real16 | ImageFormat::Real32 => Self {
                opcode: second as u16 & 0x7FF,
                ip: joined(ip, second),
                cs: 0,
                dp: joined(dp, fourth),
                ds: 0,
            },
        }
    }
}

/// FSTENV, FLDENV, FSAVE, FRSTOR.
impl X87 {
    /// The image that FNSTENV writes; call [`Self::commit_store_environment`] after it.
    pub fn environment(&self, format: ImageFormat) -> Image {
        let [ip, cs, dp, ds] = self.last.to_fields(format);
        // The upper halves of 32-bit fields for 16-bit registers are written as ones.
        let word = |value: u16| u32::from(value) | 0xFFFF_0000;
        let fields: Fields =
            [word(self.control), word(self.status), word(self.tag_word()), ip, cs, dp, ds];
        let mut image = Image { bytes: [0; 108], len: format.environment_len() };
        let size = image.len / 7;
        for (place, field) in image.bytes.chunks_exact_mut(size).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes()[..size]);
        }
        image
    }

    /// What FNSTENV does besides its store: masks all exceptions.
    pub fn commit_store_environment(&mut self) {
        self.set_control(self.control | u16::from(flag::ALL));
    }

    /// FLDENV from `bytes`; what the slice lacks of the format's length counts as zeros.
    pub fn load_environment(&mut self, format: ImageFormat, bytes: &[u8]) {
        let size = format.environment_len() / 7;
        let mut fields: Fields = [0; 7];
        for (field, chunk) in fields.iter_mut().zip(bytes.chunks_exact(size)) {
            *field = chunk.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        }
        let [control, status, tags, ip, cs, dp, ds] = fields;
        self.set_tag_word(tags as u16);
        self.set_status(status as u16);
        self.set_control(control as u16);
        self.last = LastInstruction::from_fields([ip, cs, dp, ds], format);
    }

    /// The image that FNSAVE writes; call [`Self::init`] after it.
    pub fn saved_state(&self, format: ImageFormat) -> Image {
        let mut image = self.environment(format);
        for (i, place) in image.bytes[image.len..].chunks_exact_mut(10).take(8).enumerate() {
            place.copy_from_slice(&self.st(i as u8).to_le_bytes());
        }
        image.len += 80;
        image
    }

    /// FRSTOR from `bytes`, of [`ImageFormat::state_len`].
    pub fn restore_state(&mut self, format: ImageFormat, bytes: &[u8]) {
        let (environment, registers) =
            bytes.split_at_checked(format.environment_len()).unwrap_or((bytes, &[]));
        self.load_environment(format, environment);
        let (chunks, _) = registers.as_chunks::<10>();
        for (i, chunk) in chunks.iter().take(8).enumerate() {
            let n = self.physical(i as u8);
            self.regs[n] = F80::from_le_bytes(*chunk);
        }
    }
}

/// What FNSAVE and FRSTOR move in 32-bit protected and in 64-bit mode.
pub type HostImage = [u8; 108];

/// A host's x87 that executes the guest's instructions. Its pointers to the last instruction are
/// not the guest's, and the control word is known here.
impl X87 {
    /// The state for a host's FRSTOR, with all exceptions masked.
    pub fn to_host(&self) -> HostImage {
        let mut image = self.saved_state(ImageFormat::Protected32).bytes;
        image[0] |= flag::ALL;
        image
    }

    /// Takes over what the host's FNSAVE has stored.
    pub fn take_from_host(&mut self, image: &HostImage) {
        let (control, last) = (self.control, self.last);
        self.restore_state(ImageFormat::Protected32, image);
        (self.control, self.last) = (control, last);
    }
}

/// Where FXSAVE puts ST(0); each register takes 16 bytes.
const FXSAVE_REGISTERS: usize = 32;

fn put<const N: usize>(area: &mut [u8; 512], offset: usize, bytes: [u8; N]) {
    area[offset..offset + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(area: &[u8; 512], offset: usize) -> [u8; N] {
    std::array::from_fn(|i| area[offset + i])
}

/// The x87 part of the FXSAVE and XSAVE legacy area.
impl X87 {
    /// Writes the x87 fields of `area`: bytes 0 to 23 and the registers at 32 to 159. `wide` is
    /// the REX.W form with 64-bit pointers and no selectors.
    pub fn fxsave(&self, wide: bool, area: &mut [u8; 512]) {
        put(area, 0, self.control.to_le_bytes());
        put(area, 2, self.status.to_le_bytes());
        put(area, 4, [self.valid, 0]);
        put(area, 6, self.last.opcode.to_le_bytes());
        if wide {
            put(area, 8, self.last.ip.to_le_bytes());
            put(area, 16, self.last.dp.to_le_bytes());
        } else {
            put(area, 8, (self.last.ip as u32).to_le_bytes());
            put(area, 12, u32::from(self.last.cs).to_le_bytes());
            put(area, 16, (self.last.dp as u32).to_le_bytes());
            put(area, 20, u32::from(self.last.ds).to_le_bytes());
        }
        for i in 0..8_u8 {
            let mut padded = [0; 16];
            padded[..10].copy_from_slice(&self.st(i).to_le_bytes());
            put(area, FXSAVE_REGISTERS + 16 * usize::from(i), padded);
        }
    }

    /// Loads the x87 fields of `area`.
    pub fn fxrstor(&mut self, wide: bool, area: &[u8; 512]) {
        let word = |offset| u16::from_le_bytes(get(area, offset));
        let dword = |offset| u64::from(u32::from_le_bytes(get(area, offset)));
        let qword = |offset| u64::from_le_bytes(get(area, offset));
        self.control = word(0) & CONTROL_WRITABLE | CONTROL_ONES;
        self.set_status(word(2));
        self.valid = area[4];
        self.last = if wide {
            LastInstruction { opcode: word(6) & 0x7FF, ip: qword(8), cs: 0, dp: qword(16), ds: 0 }
        } else {
            LastInstruction {
                opcode: word(6) & 0x7FF,
                ip: dword(8),
                cs: word(12),
                dp: dword(16),
                ds: word(20),
            }
        };
        for i in 0..8_u8 {
            let n = self.physical(i);
            let bytes = get(area, FXSAVE_REGISTERS + 16 * usize::from(i));
            self.regs[n] = F80::from_le_bytes(bytes);
        }
    }
}
