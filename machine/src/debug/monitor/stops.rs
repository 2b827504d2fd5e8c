//! Stops that the protocol has no packets for.

use std::fmt::Write;
use std::ops::RangeInclusive;

use brolga_cpu::exception;

use super::Answer;
use super::numbers::{number, range};
use crate::debug::Wishes;
use crate::machine::Machine;

/// The second argument of a command that takes a stop back.
const OFF: &str = "off";

pub(super) fn physical(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wishes = &mut machine.debug.wishes;
    if let Some(at) = arguments.first() {
        let at = number(at)?;
        wishes.plan.physical.insert(at);
        return Ok(format!("stops before the instruction at physical address {at:#x}\n"));
    }
    Ok(list(wishes))
}

/// All stops that were set by command.
fn list(wishes: &Wishes) -> String {
    let mut text = String::new();
    for at in &wishes.plan.physical {
        let _ = writeln!(text, "physical address {at:#x}");
    }
    for vector in (0..=255).filter(|vector| wishes.plan.has_vector(*vector)) {
        let logged = wishes.told[usize::from(vector >> 6)] >> (vector & 63) & 1 != 0;
        let what = if logged { "logs" } else { "stops at" };
        let _ = writeln!(text, "{what} vector {vector} ({})", exception::name(vector));
    }
    for ports in &wishes.plan.ports {
        let _ = writeln!(text, "ports {:#x} to {:#x}", ports.start(), ports.end());
    }
    for at in &wishes.plan.mmio {
        let _ = writeln!(text, "registers {:#x} to {:#x}", at.start(), at.end());
    }
    for n in (0..16).filter(|n| wishes.plan.controls >> n & 1 != 0) {
        let _ = writeln!(text, "writes of cr{n}");
    }
    if let Some(goal) = wishes.goto {
        let _ = writeln!(text, "when {goal} instructions are retired");
    }
    if text.is_empty() { "nothing is set\n".into() } else { text }
}

pub(super) fn delete(machine: &mut Machine, _: &[&str]) -> Answer {
    machine.debug.wishes = Wishes::default();
    Ok("nothing is set any more\n".into())
}

pub(super) fn vectors(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wishes = &mut machine.debug.wishes;
    let Some(vector) = arguments.first() else { return Ok(list(wishes)) };
    let vector = u8::try_from(number(vector)?).map_err(|_| "vectors end at 255")?;
    let (word, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
    let (stops, told) = (&mut wishes.plan.vectors[word], &mut wishes.told[word]);
    (*stops, *told) = match arguments.get(1) {
        None => (*stops | bit, *told & !bit),
        Some(&"log") => (*stops | bit, *told | bit),
        Some(&OFF) => (*stops & !bit, *told & !bit),
        Some(_) => return Err("say log or off, or nothing to stop".into()),
    };
    Ok(list(wishes))
}

/// Adds or removes a range.
fn change<T: PartialEq>(
    ranges: &mut Vec<RangeInclusive<T>>,
    range: RangeInclusive<T>,
    arguments: &[&str],
) -> Result<(), String> {
    match arguments.get(1) {
        None if ranges.contains(&range) => {}
        None => ranges.push(range),
        Some(&OFF) => ranges.retain(|other| *other != range),
        Some(_) => return Err("say off, or nothing to stop".into()),
    }
    Ok(())
}

pub(super) fn ports(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wishes = &mut machine.debug.wishes;
    if let Some(text) = arguments.first() {
        let (first, last) = range(text)?.into_inner();
        let port = |n: u64| u16::try_from(n).map_err(|_| "ports end at 0xffff".to_owned());
        change(&mut wishes.plan.ports, port(first)?..=port(last)?, arguments)?;
    }
    Ok(list(wishes))
}

pub(super) fn mmio(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wishes = &mut machine.debug.wishes;
    if let Some(text) = arguments.first() {
        change(&mut wishes.plan.mmio, range(text)?, arguments)?;
    }
    Ok(list(wishes))
}

pub(super) fn controls(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wishes = &mut machine.debug.wishes;
    if let Some(text) = arguments.first() {
        let bit = match number(text)? {
            n @ (0 | 2 | 3 | 4 | 8) => 1 << n,
            _ => return Err("there are cr0, cr2, cr3, cr4 and cr8".into()),
        };
        match arguments.get(1) {
            None => wishes.plan.controls |= bit,
            Some(&OFF) => wishes.plan.controls &= !bit,
            Some(_) => return Err("say off, or nothing to stop".into()),
        }
    }
    Ok(list(wishes))
}

pub(super) fn goto(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let goal = number(arguments.first().ok_or("say how many instructions")?)?;
    let retired = machine.retired();
    if goal <= retired {
        return Err(format!("{retired} instructions are retired already"));
    }
    machine.debug.wishes.goto = Some(goal);
    Ok(format!("continue stops when {goal} instructions are retired\n"))
}
