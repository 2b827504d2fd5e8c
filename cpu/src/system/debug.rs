//! Debug registers, breakpoints and single-stepping (SDM vol. 3, chapter 17.2 and 17.3).

use brolga_mmu::{Linear, Width};

use super::Done;
use super::interrupt::{Event, deliver};
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::{Exception, vector};
use crate::insn::Insn;
use crate::vcpu::cr4;

/// DR6: a debug register was accessed while DR7.GD was set.
pub const BD: u64 = 1 << 13;
/// DR6: single step.
pub const BS: u64 = 1 << 14;
/// DR6: a switch to a task with the T flag set.
pub const BT: u64 = 1 << 15;
/// DR7.GD: the next access to a debug register faults.
pub const GENERAL_DETECT: u64 = 1 << 13;
/// DR7: L0-L3 and LE, which a task switch clears.
pub const LOCAL_ENABLES: u64 = 0x155;

/// DR6 bits that stand for the four breakpoints.
const CONDITIONS: u64 = 0xf;
/// Bits of DR6 that always read as one (bit 16 without RTM).
const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_WRITABLE: u64 = BD | BS | BT | CONDITIONS;
const DR7_ONES: u64 = 1 << 10;
const DR7_WRITABLE: u64 = 0xffff_23ff;

/// The R/W field of a breakpoint in DR7.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Execute,
    Write,
    Port,
    ReadWrite,
}

fn watch(core: &Core, n: usize) -> Watch {
    match core.vcpu.sys.dr7 >> (16 + 4 * n) & 3 {
        0 => Watch::Execute,
        1 => Watch::Write,
        2 => Watch::Port,
        _ => Watch::ReadWrite,
    }
}

/// The DR6 bits of the enabled breakpoints of the kinds `wanted` that touch `len` bytes at `at`.
fn hits(core: &Core, at: u64, len: u64, wanted: impl Fn(Watch) -> bool) -> u64 {
    let sys = &core.vcpu.sys;
    let mut bits = 0;
    for n in 0..4 {
        let enabled = sys.dr7 >> (2 * n) & 3 != 0;
        if !enabled || !wanted(watch(core, n)) {
            continue;
        }
        let size = [1, 2, 8, 4][(sys.dr7 >> (18 + 4 * n) & 3) as usize];
        let start = sys.dr[n] & !(size - 1);
        if at.wrapping_sub(start) < size || start.wrapping_sub(at) < len {
            bits |= 1 << n;
        }
    }
    bits
}

/// Records the conditions of a debug exception that is about to be delivered.
fn report(core: &mut Core, bits: u64) {
    let dr6 = &mut core.vcpu.sys.dr6;
    *dr6 = *dr6 & !CONDITIONS | bits;
}

/// To be called for a data access of the current instruction in a watched page: a matching
/// breakpoint traps after the instruction.
pub fn data_access(core: &mut Core, at: Linear, len: u64, write: bool) {
    let bits =
        hits(core, at.0, len, |kind| kind == Watch::ReadWrite || kind == Watch::Write && write);
    pend(core, bits);
}

/// As [`data_access`] for a port: only with CR4.DE set.
pub(super) fn port_access(core: &mut Core, port: u16, len: u64) {
    if core.vcpu.sys.dr7 & 0xff != 0 && core.vcpu.sys.cr4 & cr4::DE != 0 {
        let bits = hits(core, port.into(), len, |kind| kind == Watch::Port);
        pend(core, bits);
    }
}

fn pend(core: &mut Core, bits: u64) {
    if bits != 0 {
        core.vcpu.pending_db |= bits;
        core.leave_block(false);
    }
}

/// Delivers #DB if a breakpoint is set on the instruction at RIP; true if so. The caller has
/// looked at RF.
pub fn instruction_breakpoint(core: &mut Core) -> bool {
    let at = core.code_address(core.rip());
    let bits = hits(core, at.0, 1, |kind| kind == Watch::Execute);
    if bits == 0 {
        return false;
    }
    report(core, bits);
    deliver(core, Event::Exception(Exception::plain(vector::DB, "instruction breakpoint")));
    true
}

/// An instruction that began with TF set has completed.
pub fn single_stepped(core: &mut Core) {
    if !std::mem::take(&mut core.delivery.software) {
        core.vcpu.pending_db |= BS;
    }
}

/// The debug trap that the completed instruction has earned, with DR6 set for it.
pub fn pending_traps(core: &mut Core) -> Option<Exception> {
    let bits = std::mem::take(&mut core.vcpu.pending_db);
    if bits == 0 {
        return None;
    }
    report(core, bits);
    let why = if bits & BS != 0 { "single step" } else { "data, port or task breakpoint" };
    Some(Exception { trap: true, ..Exception::plain(vector::DB, why) })
}

/// Delivers what [`pending_traps`] finds.
pub fn deliver_trap(core: &mut Core) {
    if let Some(e) = pending_traps(core) {
        deliver(core, Event::Exception(e));
    }
}

/// The checks that every MOV to or from a debug register makes; returns the register, aliases
/// resolved.
fn check_access(core: &mut Core, n: u8) -> Result<u8, Exit> {
    core.require_cpl0()?;
    let n = match n {
        4 | 5 => {
            let ok = core.vcpu.sys.cr4 & cr4::DE == 0;
            core.require(ok, Exception::ud("DR4 or DR5 with CR4.DE set"))?;
            n + 2
        }
        0..=7 => n,
        _ => return Err(core.raise(Exception::ud("no such debug register"))),
    };
    if core.vcpu.sys.dr7 & GENERAL_DETECT != 0 {
        core.vcpu.sys.dr6 |= BD;
        return Err(core.raise(Exception::plain(vector::DB, "debug register access with DR7.GD")));
    }
    Ok(n)
}

/// MOV r, DRn.
pub fn mov_from_dr(core: &mut Core, insn: &Insn) -> Done {
    let n = check_access(core, insn.reg[1])?;
    let sys = &core.vcpu.sys;
    let v = match n {
        6 => sys.dr6,
        7 => sys.dr7,
        _ => sys.dr[usize::from(n & 3)],
    };
    let w = core.native_width();
    core.set_reg(w, insn.reg[0], v & w.mask());
    Ok(())
}

/// MOV DRn, r.
pub fn mov_to_dr(core: &mut Core, insn: &Insn) -> Done {
    let n = check_access(core, insn.reg[0])?;
    let w: Width = core.native_width();
    let v = core.reg(w, insn.reg[1]);
    let ok = n < 6 || v >> 32 == 0;
    core.require(ok, Exception::gp("upper half of DR6 or DR7 is not 0"))?;
    let sys = &mut core.vcpu.sys;
    match n {
        6 => sys.dr6 = v & DR6_WRITABLE | DR6_ONES,
        7 => sys.dr7 = v & DR7_WRITABLE | DR7_ONES,
        _ => sys.dr[usize::from(n & 3)] = v,
    }
    // Pages with data breakpoints must miss the TLB's fast path.
    core.mem.tlb.flush_all();
    core.mode_changed();
    core.leave_block(false);
    Ok(())
}
