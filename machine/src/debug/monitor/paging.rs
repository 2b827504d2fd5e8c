//! Memory as the processor sees it: page walks, the TLB, the physical address space.

use std::fmt::Write;

use brolga_gdb::DebugTarget;
use brolga_mmu::{Access, AccessKind, Backing};

use super::Answer;
use super::numbers::number;
use crate::machine::Machine;

pub(super) fn walk(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let at = number(arguments.first().ok_or("say which address")?)?;
    let mut access = Access { kind: AccessKind::Read, user: false, smap_checked: true };
    for word in &arguments[1..] {
        match *word {
            "r" => access.kind = AccessKind::Read,
            "w" => access.kind = AccessKind::Write,
            "x" => access.kind = AccessKind::Execute,
            "user" => access.user = true,
            _ => return Err(format!("{word:?} is no kind of access")),
        }
    }
    let probe = machine.probe(at, access);
    let mut text = String::new();
    for step in &probe.steps {
        let _ = writeln!(text, "{step}");
    }
    let _ = match &probe.outcome {
        Ok(found) => {
            let flag = |on, letter| if on { letter } else { '-' };
            writeln!(
                text,
                "{at:#x} -> {}: {} KiB page, {}{}{}{}",
                found.phys,
                1_u64 << (u32::from(found.page_bits) - 10),
                flag(found.readable, 'r'),
                flag(found.executable, 'x'),
                flag(found.user, 'u'),
                flag(found.global, 'g'),
            )
        }
        Err(fault) => writeln!(text, "{at:#x}: {fault}"),
    };
    Ok(text)
}

pub(super) fn tlb(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let wanted = arguments.first().map(|at| number(at)).transpose()?;
    let tlb = &machine.core().mem.tlb;
    let mut text = format!("pcid {}, generation {}\n", tlb.pcid(), tlb.generation());
    let held = tlb.held().filter(|held| wanted.is_none_or(|at| held.linear.0 == at & !0xfff));
    for held in held {
        let flag = |on, letter| if on { letter } else { '-' };
        let _ = writeln!(
            text,
            "{:#018x} -> {:#014x} {}{}{}{} {:?}",
            held.linear.0,
            held.phys.0,
            flag(held.read, 'r'),
            flag(held.write, 'w'),
            flag(held.exec, 'x'),
            flag(held.global, 'g'),
            held.index,
        );
    }
    Ok(text)
}

pub(super) fn memory(machine: &mut Machine, _: &[&str]) -> Answer {
    let mut text = String::new();
    for (first, last, backing) in machine.map().regions() {
        let what = match backing {
            Backing::Ram { .. } => "RAM",
            Backing::Mmio => "registers",
            _ => "ROM",
        };
        let _ = writeln!(text, "{:#014x} to {:#014x} {what}", first.0, last.0);
    }
    text.push_str("registers and nothing elsewhere\n");
    Ok(text)
}

pub(super) fn physical(machine: &mut Machine, arguments: &[&str]) -> Answer {
    const COUNT: u64 = 64;
    const MOST: u64 = 4096;
    let at = number(arguments.first().ok_or("say which address")?)?;
    let count = arguments.get(1).map_or(Ok(COUNT), |count| number(count))?.min(MOST);
    let mut bytes = vec![0; count as usize];
    machine.read_physical(at, &mut bytes).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for (n, row) in bytes.chunks(16).enumerate() {
        let row: String = row.iter().map(|byte| format!(" {byte:02x}")).collect();
        let _ = writeln!(text, "{:#012x} {row}", at + 16 * n as u64);
    }
    Ok(text)
}
