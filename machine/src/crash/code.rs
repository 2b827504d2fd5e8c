//! The code at CS:RIP.

use brolga_gdb::{DebugTarget, Registers};
use iced_x86::{Decoder, DecoderOptions, FastFormatter};
use serde::Serialize;

/// The longest instruction (SDM vol. 2, 2.3.11).
const LONGEST: usize = 15;
/// Bytes shown as they are.
const SHOWN: usize = 32;

/// An instruction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CodeLine {
    /// Its offset in CS.
    pub ip: u64,
    /// Its bytes, in hexadecimal.
    pub bytes: String,
    /// Its text.
    pub text: String,
}

/// The bytes at CS:RIP and the first `count` instructions in them.
pub(crate) fn disassemble(
    target: &impl DebugTarget,
    registers: &Registers,
    count: usize,
) -> (Vec<u8>, Vec<CodeLine>) {
    let mut bytes = vec![0; LONGEST * count];
    let readable = target.read_linear(registers.linear_rip(), &mut bytes);
    bytes.truncate(readable);
    let bits = registers.code_bits();
    let mut decoder = Decoder::with_ip(bits, &bytes, registers.rip, DecoderOptions::NONE);
    let mut formatter = FastFormatter::new();
    let mut lines = Vec::new();
    while decoder.can_decode() && lines.len() < count {
        let from = decoder.position();
        let instruction = decoder.decode();
        let mut text = String::new();
        formatter.format(&instruction, &mut text);
        let bytes = bytes[from..decoder.position()].iter().map(|byte| format!("{byte:02x}"));
        lines.push(CodeLine { ip: instruction.ip(), bytes: bytes.collect(), text });
    }
    bytes.truncate(SHOWN);
    (bytes, lines)
}
