//! Writes vector files in the MOO format, version 1.1, for tests of what reads them. The format is
//! a tree of chunks, each a four-letter name, a length and that many bytes.

/// A chunk.
pub fn chunk(name: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    [name, &(payload.len() as u32).to_le_bytes()[..], payload].concat()
}

/// A file of `cases`, each from [`Case386::chunk`].
pub fn file(cpu: &[u8; 4], cases: &[Vec<u8>]) -> Vec<u8> {
    const VERSION: [u8; 4] = [1, 1, 0, 0];
    let count = (cases.len() as u32).to_le_bytes();
    let header = chunk(b"MOO ", &[&VERSION[..], &count, cpu].concat());
    [vec![header], cases.to_vec()].concat().concat()
}

/// Bits of the 32-bit register chunks.
pub mod reg {
    #![allow(missing_docs)]
    pub const EAX: u32 = 2;
    pub const ECX: u32 = 4;
    pub const EDX: u32 = 5;
    pub const EDI: u32 = 7;
    pub const ESP: u32 = 9;
    pub const CS: u32 = 10;
    pub const DS: u32 = 11;
    pub const SS: u32 = 15;
    pub const EIP: u32 = 16;
    pub const EFLAGS: u32 = 17;
}

/// A case of an 80386, in real mode.
#[derive(Clone, Debug, Default)]
pub struct Case386 {
    /// The instruction in text.
    pub name: &'static str,
    /// Its bytes, with the HLT behind it. They lie at CS:EIP.
    pub bytes: Vec<u8>,
    /// Registers before, by the numbers of [`reg`].
    pub before: Vec<(u32, u32)>,
    /// Registers that have changed.
    pub after: Vec<(u32, u32)>,
    /// Bits of registers that are defined afterwards.
    pub masks: Vec<(u32, u32)>,
    /// Memory besides the instruction: address, byte before, byte after.
    pub memory: Vec<(u32, u8, u8)>,
    /// The exception that is raised.
    pub exception: Option<u8>,
}

impl Case386 {
    /// The case as a chunk.
    pub fn chunk(&self, index: u32) -> Vec<u8> {
        let value =
            |wanted| self.before.iter().find(|(reg, _)| *reg == wanted).map_or(0, |(_, v)| *v);
        let code = value(reg::CS).wrapping_mul(16).wrapping_add(value(reg::EIP));
        let bytes = self.bytes.iter().copied();
        let instruction = (0..).zip(bytes).map(|(n, byte)| (code.wrapping_add(n), byte));
        let before = instruction.chain(self.memory.iter().map(|(at, before, _)| (*at, *before)));
        let after =
            self.memory.iter().filter(|(_, a, b)| a != b).map(|(at, _, after)| (*at, *after));
        let mut last = vec![registers(b"RG32", &self.after)];
        if !self.masks.is_empty() {
            last.push(registers(b"RM32", &self.masks));
        }
        last.push(memory(after));
        let mut parts = vec![
            index.to_le_bytes().to_vec(),
            chunk(b"NAME", &counted(self.name.as_bytes())),
            chunk(b"BYTS", &counted(&self.bytes)),
            chunk(b"INIT", &[registers(b"RG32", &self.before), memory(before)].concat()),
            chunk(b"FINA", &last.concat()),
        ];
        if let Some(vector) = self.exception {
            parts.push(chunk(b"EXCP", &[vector, 0, 0, 0, 0]));
        }
        parts.push(chunk(b"HASH", &[index as u8 + 1; 20]));
        chunk(b"TEST", &parts.concat())
    }
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat()
}

fn registers(name: &[u8; 4], values: &[(u32, u32)]) -> Vec<u8> {
    let mut values = values.to_vec();
    values.sort_unstable();
    let present = values.iter().fold(0_u32, |present, (reg, _)| present | 1 << reg);
    let words = std::iter::once(present).chain(values.iter().map(|(_, value)| *value));
    chunk(name, &words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
}

fn memory(cells: impl Iterator<Item = (u32, u8)>) -> Vec<u8> {
    let cells: Vec<_> = cells.collect();
    let mut payload = (cells.len() as u32).to_le_bytes().to_vec();
    for (at, value) in cells {
        payload.extend(at.to_le_bytes());
        payload.push(value);
    }
    chunk(b"RAM ", &payload)
}
