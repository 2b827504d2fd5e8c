//! Descriptor tables, task state segments and registers, decoded (SDM vol. 3, chapters 3, 6, 7).

use std::fmt::Write;

use brolga_cpu::exception;
use brolga_cpu::vcpu::{Segment, attr};
use brolga_gdb::DebugTarget;
use brolga_gdb::layout::{Layout, Register};

use super::Answer;
use super::numbers::number;
use crate::machine::Machine;

/// What the descriptor `raw` makes of a segment register loaded with `selector`.
pub(in crate::debug) fn descriptor(selector: u16, raw: u64) -> Segment {
    const GRANULAR: u32 = attr::G;
    let attr = (raw >> 40) as u32 & 0xf0ff;
    let limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
    let base = raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000;
    let limit = if attr & GRANULAR != 0 { limit << 12 | 0xfff } else { limit };
    Segment { selector, attr, limit, base }
}

/// Reads `N` bytes of linear memory.
fn bytes<const N: usize>(machine: &Machine, at: u64) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    if machine.read_linear(at, &mut bytes) < N {
        return Err(format!("nothing is mapped at {at:#x}"));
    }
    Ok(bytes)
}

fn quad(machine: &Machine, at: u64) -> Result<u64, String> {
    bytes(machine, at).map(u64::from_le_bytes)
}

pub(super) fn gdt(machine: &mut Machine, _: &[&str]) -> Answer {
    let table = machine.core().vcpu.gdtr;
    segments(machine, table.base, table.limit.into(), 0)
}

pub(super) fn ldt(machine: &mut Machine, _: &[&str]) -> Answer {
    let ldtr = machine.core().vcpu.ldtr;
    if ldtr.has(attr::UNUSABLE) || ldtr.selector & !3 == 0 {
        return Ok("LDTR is null\n".into());
    }
    segments(machine, ldtr.base, ldtr.limit, 4)
}

/// A table of segment descriptors, whose selectors have these low bits.
fn segments(machine: &Machine, base: u64, limit: u32, low: u16) -> Answer {
    let long = machine.core().vcpu.long_mode();
    let mut text = format!("at {base:#x}, limit {limit:#x}\n");
    let mut offset = 0;
    while offset + 7 <= limit.min(0xffff) {
        let raw = quad(machine, base.wrapping_add(offset.into()))?;
        let mut segment = descriptor(offset as u16 | low, raw);
        let wide = long && segment.attr & attr::S == 0 && segment.kind() != 0;
        if wide && offset + 15 <= limit {
            segment.base |= quad(machine, base.wrapping_add(u64::from(offset) + 8))? << 32;
        }
        if raw != 0 {
            let _ = writeln!(text, "{}", describe(&segment, long));
        }
        offset += if wide { 16 } else { 8 };
    }
    Ok(text)
}

fn describe(segment: &Segment, long: bool) -> String {
    let Segment { selector, base, limit, .. } = segment;
    let on = |bit, name: &'static str| if segment.has(bit) { name } else { "" };
    let what = if segment.has(attr::S) {
        let size = match () {
            () if segment.has(attr::L) => "64-bit",
            () if segment.has(attr::DB) => "32-bit",
            () => "16-bit",
        };
        let rights = if segment.has(attr::CODE) {
            [on(attr::RW, " readable"), on(attr::DC, " conforming")]
        } else {
            [on(attr::RW, " writable"), on(attr::DC, " expand-down")]
        };
        let kind = if segment.has(attr::CODE) { "code" } else { "data" };
        format!("{size} {kind}{}{}{}", rights[0], rights[1], on(attr::ACCESSED, " accessed"))
    } else {
        system_type(segment.kind(), long).to_owned()
    };
    let present = if segment.has(attr::P) { "" } else { " not present" };
    format!(
        "{selector:04x} base {base:#018x} limit {limit:#010x} dpl {} {what}{present}",
        segment.dpl()
    )
}

/// Types of system descriptors (SDM vol. 3, table 3-2).
fn system_type(kind: u8, long: bool) -> &'static str {
    match (kind, long) {
        (1, false) => "16-bit TSS",
        (2, _) => "LDT",
        (3, false) => "16-bit TSS, busy",
        (4, false) => "16-bit call gate",
        (5, false) => "task gate",
        (6, false) => "16-bit interrupt gate",
        (7, false) => "16-bit trap gate",
        (9, false) => "32-bit TSS",
        (9, true) => "64-bit TSS",
        (11, false) => "32-bit TSS, busy",
        (11, true) => "64-bit TSS, busy",
        (12, _) => "call gate",
        (14, _) => "interrupt gate",
        (15, _) => "trap gate",
        _ => "reserved",
    }
}

pub(super) fn idt(machine: &mut Machine, arguments: &[&str]) -> Answer {
    let only = arguments.first().map(|text| number(text)).transpose()?;
    let vcpu = &machine.core().vcpu;
    let (table, long, real) = (vcpu.idtr, vcpu.long_mode(), !vcpu.protected() && !vcpu.v86());
    let size: u64 = match (real, long) {
        (true, _) => 4,
        (_, true) => 16,
        _ => 8,
    };
    let mut text = format!("at {:#x}, limit {:#x}\n", table.base, table.limit);
    let count = ((u64::from(table.limit) + 1) / size).min(256);
    for vector in (0..count).filter(|vector| only.is_none_or(|only| only == *vector)) {
        let at = table.base.wrapping_add(vector * size);
        let gate = match size {
            4 => real_vector(u32::from_le_bytes(bytes(machine, at)?)),
            _ => {
                let high = if long { quad(machine, at + 8)? } else { 0 };
                gate(quad(machine, at)?, high, long)
            }
        };
        if let Some(gate) = gate {
            let _ = writeln!(text, "{vector:3} {:<9} {gate}", exception::name(vector as u8));
        }
    }
    Ok(text)
}

fn real_vector(raw: u32) -> Option<String> {
    (raw != 0).then(|| format!("{:04x}:{:04x}", raw >> 16, raw & 0xffff))
}

fn gate(low: u64, high: u64, long: bool) -> Option<String> {
    let rights = (low >> 40) as u32;
    if rights & attr::P == 0 {
        return None;
    }
    let (selector, kind, dpl) = (low >> 16 & 0xffff, (rights & 15) as u8, rights >> 5 & 3);
    let offset = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    let stack = match low >> 32 & 7 {
        ist if long && ist != 0 => format!(" IST{ist}"),
        _ => String::new(),
    };
    Some(format!("{selector:04x}:{offset:#018x} dpl {dpl} {}{stack}", system_type(kind, long)))
}

pub(super) fn tss(machine: &mut Machine, _: &[&str]) -> Answer {
    let vcpu = &machine.core().vcpu;
    let (tr, long) = (vcpu.tr, vcpu.long_mode());
    let mut text = format!("{}\n", describe(&tr, long));
    let (names, offsets, size): (&[&str], &[u64], u64) = match (tr.kind(), long) {
        (9 | 11, true) => (
            &["rsp0", "rsp1", "rsp2", "ist1", "ist2", "ist3", "ist4", "ist5", "ist6", "ist7"],
            &[4, 12, 20, 36, 44, 52, 60, 68, 76, 84],
            8,
        ),
        (9 | 11, false) => (
            &["link", "esp0", "ss0", "esp1", "ss1", "esp2", "ss2", "cr3", "eip", "eflags", "ldt"],
            &[0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 96],
            4,
        ),
        (1 | 3, false) => (&["link", "sp0", "ss0", "sp1", "ss1"], &[0, 2, 4, 6, 8], 2),
        _ => return Ok(text),
    };
    for (name, offset) in names.iter().zip(offsets) {
        let raw = quad(machine, tr.base.wrapping_add(*offset))?;
        let value = if size == 8 { raw } else { raw & ((1 << (8 * size)) - 1) };
        let _ = writeln!(text, "{name:<7} {value:#x}");
    }
    if size > 2 {
        let map = quad(machine, tr.base.wrapping_add(0x66))? & 0xffff;
        let _ = writeln!(text, "I/O map {map:#x}");
    }
    Ok(text)
}

/// The MSRs that are plain storage.
pub(super) fn msrs(machine: &Machine) -> String {
    let sys = &machine.core().vcpu.sys;
    let named = [
        ("IA32_EFER", sys.efer),
        ("IA32_STAR", sys.star),
        ("IA32_LSTAR", sys.lstar),
        ("IA32_CSTAR", sys.cstar),
        ("IA32_FMASK", sys.sfmask),
        ("IA32_FS_BASE", machine.core().vcpu.segs[4].base),
        ("IA32_GS_BASE", machine.core().vcpu.segs[5].base),
        ("IA32_KERNEL_GS_BASE", sys.kernel_gs_base),
        ("IA32_SYSENTER_CS", sys.sysenter_cs),
        ("IA32_SYSENTER_ESP", sys.sysenter_esp),
        ("IA32_SYSENTER_EIP", sys.sysenter_eip),
        ("IA32_PAT", sys.pat),
        ("IA32_MISC_ENABLE", sys.misc_enable),
        ("IA32_TSC_AUX", sys.tsc_aux),
        ("IA32_TSC_ADJUST", sys.tsc_adjust),
        ("IA32_SPEC_CTRL", sys.spec_ctrl),
        ("IA32_MTRR_DEF_TYPE", sys.mtrr_def_type),
    ];
    named.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:<20} {value:#018x}");
        text
    })
}

/// A group of registers; `None` if there is none of this name.
pub(super) fn group(machine: &Machine, name: &str) -> Option<String> {
    let belongs: fn(Register) -> bool = match name {
        "general" => {
            |register| matches!(register, Register::General(_) | Register::Pc | Register::Flags)
        }
        "segments" => |register| {
            matches!(
                register,
                Register::Selector(_)
                    | Register::Base(_)
                    | Register::KernelGsBase
                    | Register::Table(_)
                    | Register::Cpl
            )
        },
        "control" => |register| matches!(register, Register::Cr(_) | Register::Efer),
        "debug" => |register| matches!(register, Register::Dr(_)),
        "fpu" => |register| matches!(register, Register::St(_) | Register::Fpu(_)),
        "sse" => |register| matches!(register, Register::Xmm(_) | Register::Mxcsr),
        "msr" => return Some(msrs(machine)),
        _ => return None,
    };
    let layout = Layout::of(machine.has_long_mode(), machine.registers().code_bits());
    let chosen = layout.entries.iter().filter(|entry| belongs(entry.register));
    Some(chosen.fold(String::new(), |mut text, entry| {
        let value = machine.read_register(entry.register);
        let digits = 2 * entry.bytes();
        let _ = writeln!(text, "{:<10} {value:0digits$x}", entry.name);
        text
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_taken_apart() {
        let flat = descriptor(8, 0x00cf_9a00_0000_ffff);
        assert_eq!((flat.base, flat.limit), (0, u32::MAX));
        assert_eq!(
            describe(&flat, false),
            "0008 base 0x0000000000000000 limit 0xffffffff dpl 0 32-bit code readable"
        );
        let small = descriptor(0x10, 0x1240_f256_789a_bcde);
        assert_eq!((small.base, small.limit, small.dpl()), (0x1256_789a, 0xbcde, 3));
    }

    #[test]
    fn gates_are_taken_apart() {
        let text = gate(0x8105_8e02_0010_0234, 0xffff_ffff, true);
        let expected = "0010:0xffffffff81050234 dpl 0 interrupt gate IST2";
        assert_eq!(text.as_deref(), Some(expected));
        assert_eq!(gate(0, 0, true), None);
        assert_eq!(real_vector(0xf000_e2c3).as_deref(), Some("f000:e2c3"));
    }
}
