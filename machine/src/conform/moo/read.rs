//! Bytes to cases. The format is a tree of chunks, each a four-letter name, a length and that many
//! bytes; unknown chunks are skipped.

use super::{Case, Cell, Processor, Reg, Registers, State, Taken};

/// What a file begins with.
pub const MAGIC: &[u8] = b"MOO ";

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum BadMoo {
    /// It does not begin with the format's header.
    #[error("not a MOO file")]
    NoHeader,
    /// A major version other than 1.
    #[error("MOO version {0} is not supported")]
    Version(u8),
    /// A processor that ours says nothing about.
    #[error("vectors of the processor {0:?} are not supported (8086, 8088, C286, 386E are)")]
    Processor(String),
    /// A chunk is shorter than its contents.
    #[error("chunk {0:?} is cut short")]
    Short(String),
    /// Fewer or more cases than the header says.
    #[error("the header promises {promised} cases, the file has {found}")]
    Count {
        /// By the header.
        promised: u32,
        /// In the file.
        found: usize,
    },
}

/// A file of cases.
#[derive(Clone, Debug)]
pub struct File {
    /// The processor that the cases were captured from.
    pub processor: Processor,
    /// The cases.
    pub cases: Vec<Case>,
}

/// Reads an uncompressed file.
pub fn parse(bytes: &[u8]) -> Result<File, BadMoo> {
    let mut chunks = Chunks(Bytes { name: "file", left: bytes });
    let mut header = match chunks.next() {
        Some(Ok((name, payload))) if name == *b"MOO " => payload,
        _ => return Err(BadMoo::NoHeader),
    };
    let [major, ..] = header.array::<4>()?;
    if major != 1 {
        return Err(BadMoo::Version(major));
    }
    let promised = header.u32()?;
    let name = text(&header.array::<4>()?).trim_end().to_owned();
    let processor = Processor::by_name(&name).ok_or(BadMoo::Processor(name))?;
    let (mut cases, mut masks) = (Vec::new(), Registers::default());
    for chunk in chunks {
        let (name, payload) = chunk?;
        match &name {
            b"RMSK" => masks = registers16(payload)?,
            b"RM32" => masks = registers32(payload)?,
            b"TEST" => cases.push(case(payload, masks)?),
            _ => {}
        }
    }
    if cases.len() != promised as usize {
        return Err(BadMoo::Count { promised, found: cases.len() });
    }
    Ok(File { processor, cases })
}

fn case(mut payload: Bytes, masks: Registers) -> Result<Case, BadMoo> {
    let mut case = Case { index: payload.u32()?, masks, ..Case::default() };
    for chunk in Chunks(payload) {
        let (name, mut payload) = chunk?;
        match &name {
            b"NAME" => case.name = text(payload.counted()?),
            b"BYTS" => case.bytes = payload.counted()?.to_vec(),
            b"INIT" => case.before = state(payload, &mut case.masks)?,
            b"FINA" => case.after = state(payload, &mut case.masks)?,
            b"EXCP" => {
                let [vector] = payload.array()?;
                case.taken = Some(Taken { vector, flags_at: payload.u32()? });
            }
            b"HASH" => case.hash = payload.array()?,
            _ => {}
        }
    }
    Ok(case)
}

fn state(payload: Bytes, masks: &mut Registers) -> Result<State, BadMoo> {
    let mut state = State::default();
    for chunk in Chunks(payload) {
        let (name, payload) = chunk?;
        match &name {
            b"REGS" => state.regs = registers16(payload)?,
            b"RG32" => state.regs = registers32(payload)?,
            b"RMSK" => *masks = registers16(payload)?,
            b"RM32" => *masks = registers32(payload)?,
            b"RAM " => state.ram = cells(payload)?,
            _ => {}
        }
    }
    Ok(state)
}

fn registers16(mut payload: Bytes) -> Result<Registers, BadMoo> {
    use Reg::{Ax, Bp, Bx, Cs, Cx, Di, Ds, Dx, Es, Flags, Ip, Si, Sp, Ss};
    const ORDER: [Reg; 14] = [Ax, Bx, Cx, Dx, Cs, Ss, Ds, Es, Sp, Bp, Si, Di, Ip, Flags];
    let present = payload.u16()?;
    let mut registers = Registers::default();
    for (bit, reg) in ORDER.into_iter().enumerate() {
        if present >> bit & 1 != 0 {
            registers.set(reg, payload.u16()?.into());
        }
    }
    Ok(registers)
}

fn registers32(mut payload: Bytes) -> Result<Registers, BadMoo> {
    let present = payload.u32()?;
    let mut registers = Registers::default();
    for (bit, reg) in Reg::ALL.into_iter().enumerate() {
        if present >> bit & 1 != 0 {
            registers.set(reg, payload.u32()?);
        }
    }
    Ok(registers)
}

fn cells(mut payload: Bytes) -> Result<Vec<Cell>, BadMoo> {
    let count = payload.u32()?;
    let mut cells = Vec::new();
    for _ in 0..count {
        let at = payload.u32()?;
        let [value] = payload.array()?;
        cells.push(Cell { at, value });
    }
    Ok(cells)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What is left of a chunk's payload.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    name: &'a str,
    left: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], BadMoo> {
        let Some((taken, left)) = self.left.split_at_checked(len) else {
            return Err(BadMoo::Short(self.name.to_owned()));
        };
        self.left = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadMoo> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Result<u16, BadMoo> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, BadMoo> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length and that many bytes.
    fn counted(&mut self) -> Result<&'a [u8], BadMoo> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}

/// The chunks of a payload.
struct Chunks<'a>(Bytes<'a>);

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<([u8; 4], Bytes<'a>), BadMoo>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.left.is_empty() {
            return None;
        }
        let chunk = self.chunk();
        if chunk.is_err() {
            self.0.left = &[];
        }
        Some(chunk)
    }
}

impl<'a> Chunks<'a> {
    fn chunk(&mut self) -> Result<([u8; 4], Bytes<'a>), BadMoo> {
        let raw = self.0.take(4)?;
        let name = std::str::from_utf8(raw).unwrap_or("????");
        let left = self.0.counted()?;
        Ok(([raw[0], raw[1], raw[2], raw[3]], Bytes { name, left }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], payload: &[u8]) -> Vec<u8> {
        [name, &(payload.len() as u32).to_le_bytes()[..], payload].concat()
    }

    fn header(cases: u8, cpu: &[u8; 4]) -> Vec<u8> {
        chunk(b"MOO ", &[&[1, 1, 0, 0, cases, 0, 0, 0], &cpu[..]].concat())
    }

    /// A 386 case: EAX (bit 2) and EIP (bit 16) before, EAX masked after, one byte of memory.
    fn case386() -> Vec<u8> {
        let regs = |ax: u32, ip: u32| {
            let present: u32 = 1 << 2 | 1 << 16;
            chunk(b"RG32", &[present, ax, ip].map(u32::to_le_bytes).concat())
        };
        let ram = chunk(b"RAM ", &[1, 0, 0, 0, 0x34, 0x12, 0, 0, 0x90]);
        let mask = chunk(b"RM32", &[1u32 << 2, 0xff].map(u32::to_le_bytes).concat());
        let before = chunk(b"INIT", &[regs(0x11223344, 5), ram].concat());
        let after = chunk(b"FINA", &[regs(0x55667788, 6), mask].concat());
        let name = chunk(b"NAME", b"\x03\0\0\0nop");
        let taken = chunk(b"EXCP", &[6, 0x10, 0, 0, 0]);
        let unknown = chunk(b"XYZ ", &[1, 2, 3]);
        let parts = [vec![7, 0, 0, 0], name, unknown, before, after, taken];
        chunk(b"TEST", &parts.concat())
    }

    #[test]
    fn a_386_file_gives_wide_registers_masks_and_exceptions() {
        let file = parse(&[header(1, b"386E"), case386()].concat()).expect("a good file");
        assert_eq!(file.processor, Processor::I386);
        let case = &file.cases[0];
        assert_eq!((case.index, case.name.as_str()), (7, "nop"));
        assert_eq!(case.before.regs.get(Reg::Ax), Some(0x11223344));
        assert_eq!(case.after.regs.get(Reg::Ip), Some(6));
        assert_eq!(case.after.regs.get(Reg::Bx), None);
        assert_eq!(case.masks.get(Reg::Ax), Some(0xff));
        assert_eq!(case.before.ram, [Cell { at: 0x1234, value: 0x90 }]);
        assert_eq!(case.taken, Some(Taken { vector: 6, flags_at: 0x10 }));
    }

    #[test]
    fn files_that_are_cut_anywhere_are_refused() {
        let whole = [header(1, b"386E"), case386()].concat();
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
        }
    }

    #[test]
    fn another_version_and_a_wrong_count_are_refused() {
        let mut file = header(0, b"C286");
        file[8] = 2;
        assert!(matches!(parse(&file), Err(BadMoo::Version(2))));
        assert!(
            matches!(parse(&header(0, b"V20 ")), Err(BadMoo::Processor(name)) if name == "V20")
        );
        assert!(matches!(parse(&header(3, b"C286")), Err(BadMoo::Count { promised: 3, found: 0 })));
    }
}
