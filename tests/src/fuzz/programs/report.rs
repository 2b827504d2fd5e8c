//! A program as text.

use std::fmt::Write;

use iced_x86::{Decoder, DecoderOptions, FastFormatter};

use super::generate::{Event, Program};
use super::layout::CODE;
use super::place;

/// The disassembly of what is left of a program, and what happens to it.
pub(super) fn describe(program: &Program) -> String {
    let Program { seed, kind, user, cr0, cr4, budget, .. } = program;
    let level = if *user { 3 } else { 0 };
    let mut text = format!(
        "seed {seed}: {kind:?}, level {level}, cr0 {cr0:x}, cr4 {cr4:x}, {budget} instructions\n"
    );
    let image = place::image(&program.blocks);
    for (number, block) in program.blocks.iter().enumerate() {
        let _ = writeln!(text, "block {number}, {} bits:", block.bits);
        for (item, at) in block.items.iter().zip(block.addresses()) {
            if item.bytes != item.nothing().bytes {
                let start = (at - CODE) as usize;
                disassemble(&mut text, block.bits, at, &image[start..start + item.bytes.len()]);
            }
        }
    }
    for (at, event) in program.events.iter().filter(|(_, event)| *event != Event::Look) {
        let _ = writeln!(text, "after {at} instructions: {event:x?}");
    }
    text
}

fn disassemble(text: &mut String, bits: u32, at: u64, bytes: &[u8]) {
    let mut decoder = Decoder::with_ip(bits, bytes, at, DecoderOptions::NONE);
    let mut formatter = FastFormatter::new();
    while decoder.can_decode() {
        let from = decoder.position();
        let instruction = decoder.decode();
        let bytes: String =
            bytes[from..decoder.position()].iter().map(|byte| format!("{byte:02x}")).collect();
        let mut line = String::new();
        formatter.format(&instruction, &mut line);
        let _ = writeln!(text, "    {:05x}  {bytes:<24} {line}", instruction.ip());
    }
}
