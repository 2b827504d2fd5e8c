//! The chips, as they would be saved.

use std::fmt::Write;

use serde_json::Value;

use super::Answer;
use crate::board::lock;
use crate::machine::Machine;

/// Arrays longer than this are memory rather than registers.
const LONGEST: usize = 64;

/// The state of all chips, by name.
fn state(machine: &Machine) -> Value {
    let saved = lock(&machine.chipset).saved();
    serde_json::to_value(saved).unwrap_or_default()
}

pub(super) fn show(machine: &mut Machine, names: &[&str]) -> Answer {
    let state = state(machine);
    let mut text = String::new();
    for name in names {
        match state.get(*name) {
            Some(chip) => write(&mut text, name, chip, 0),
            None => return Err(format!("there is no chip {name:?}")),
        }
    }
    Ok(text)
}

pub(super) fn any(machine: &mut Machine, arguments: &[&str]) -> Answer {
    if !arguments.is_empty() {
        return show(machine, arguments);
    }
    let state = state(machine);
    let names = state.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    Ok(names.collect::<Vec<_>>().join(" ") + "\n")
}

/// Writes a value as lines, indented; numbers in hexadecimal.
fn write(text: &mut String, name: &str, value: &Value, depth: usize) {
    let indent = 2 * depth;
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Object(fields) => {
            let _ = writeln!(text, "{:indent$}{name}", "");
            fields.iter().for_each(|(name, value)| write(text, name, value, depth + 1));
            Ok(())
        }
        Value::Array(items) if items.len() > LONGEST => {
            writeln!(text, "{:indent$}{name} ({} values)", "", items.len())
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            for (n, item) in items.iter().enumerate() {
                write(text, &format!("{name}[{n}]"), item, depth);
            }
            Ok(())
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(plain).collect();
            writeln!(text, "{:indent$}{name} {}", "", items.join(" "))
        }
        value => writeln!(text, "{:indent$}{name} {}", "", plain(value)),
    };
}

fn plain(value: &Value) -> String {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(number) => format!("{number:#x}"),
            None => number.to_string(),
        },
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Interrupts that are requested, in service, or masked.
pub(super) fn interrupts(machine: &mut Machine, _: &[&str]) -> Answer {
    let state = state(machine);
    let lines = machine.core().lines;
    let mut text = format!("vCPU: INTR {}, NMI {}\n", lines.intr, lines.nmi);
    for chip in ["master", "slave"] {
        let _ = write!(text, "8259 {chip}:");
        for field in ["inputs", "isr", "imr", "vector_base"] {
            let value = &state["pic"][chip][field];
            let _ = write!(text, " {field} {}", plain(value));
        }
        text.push('\n');
    }
    for field in ["irr", "isr"] {
        let _ = writeln!(text, "local APIC {field}: {}", vectors(&state["lapic"][field]));
    }
    for (pin, entry) in state["ioapic"]["entries"].as_array().into_iter().flatten().enumerate() {
        let entry = entry.as_u64().unwrap_or_default();
        const MASKED: u64 = 1 << 16;
        if entry & MASKED == 0 {
            let trigger = if entry >> 15 & 1 != 0 { "level" } else { "edge" };
            let _ = writeln!(text, "I/O APIC pin {pin}: vector {:#x}, {trigger}", entry & 0xff);
        }
    }
    Ok(text)
}

/// The vectors in a set of 256 bits, whose words are the numbers of a list.
fn vectors(words: &Value) -> String {
    let words = words.as_array().into_iter().flatten().filter_map(Value::as_u64);
    let set: Vec<String> = words
        .enumerate()
        .flat_map(|(n, word)| (0..32).filter(move |b| word >> b & 1 != 0).map(move |b| (n, b)))
        .map(|(n, bit)| format!("{:#x}", 32 * n + bit))
        .collect();
    if set.is_empty() { "none".into() } else { set.join(" ") }
}
