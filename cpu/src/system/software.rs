//! Software interrupts and the instructions that raise an exception by themselves
//! (SDM vol. 2, INT n/INTO/INT3/INT1, BOUND, UD).

use brolga_mmu::Width;

use super::Done;
use super::interrupt::{Entry, enter, enter_vector};
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::{Exception, vector};
use crate::flags::{Cond, sign_extend};
use crate::insn::Insn;
use crate::vcpu::cr4;
use crate::vcpu::rflags::{IF, IOPL, TF, VIF};

/// What `n` enters as a software interrupt of the current instruction.
fn entry(core: &mut Core, insn: &Insn, n: u8) -> Entry {
    let ip = core.next_ip(insn);
    Entry { vector: n, error: None, ip, flags: core.vcpu.rflags(), checked: true }
}

/// Enters the handler; a fault on the way is a fault of the instruction itself.
fn interrupt(core: &mut Core, e: &Entry) -> Done {
    let stepping = e.flags & TF != 0;
    enter(core, e)?;
    core.delivery.software = stepping;
    core.leave_block(false);
    Ok(())
}

/// INT n.
pub fn int_n(core: &mut Core, insn: &Insn) -> Done {
    let e = entry(core, insn, insn.imm as u8);
    if core.vcpu.v86() {
        let vme = core.vcpu.sys.cr4 & cr4::VME != 0;
        if vme && !redirected_to_idt(core, e.vector)? {
            return through_8086_table(core, e);
        }
        let ok = core.vcpu.iopl() == 3;
        core.require(ok, Exception::gp("INT n in virtual-8086 mode with IOPL < 3"))?;
    }
    interrupt(core, &e)
}

/// The bit for vector `n` in the TSS's interrupt redirection bitmap, which ends where the I/O
/// permission bitmap begins (SDM vol. 3, 20.3.3).
fn redirected_to_idt(core: &mut Core, n: u8) -> Result<bool, Exit> {
    let tr = core.vcpu.tr;
    let beyond = || Exception::gp("interrupt redirection bitmap beyond the TSS limit");
    core.require(tr.limit >= 0x67, beyond())?;
    let at = core.table_address(tr.base, 0x66);
    let io_map = core.read_linear(at, Width::W16, By::System)?;
    let offset = (io_map + u64::from(n / 8)).wrapping_sub(32);
    core.require(offset <= u64::from(tr.limit), beyond())?;
    let at = core.table_address(tr.base, offset);
    Ok(core.read_linear(at, Width::W8, By::System)? >> (n & 7) & 1 != 0)
}

/// INT n under VME through the 8086 program's own interrupt table at linear address 0.
fn through_8086_table(core: &mut Core, mut e: Entry) -> Done {
    let at = brolga_mmu::Linear(u64::from(e.vector) * 4);
    let target = core.read_linear(at, Width::W32, By::Current)?;
    let mut cleared = TF | IF;
    if core.vcpu.iopl() < 3 {
        let vif = e.flags & VIF != 0;
        e.flags = e.flags & !IF | IOPL | if vif { IF } else { 0 };
        cleared = TF | VIF;
    }
    enter_vector(core, target, &e, cleared)?;
    core.delivery.software = e.flags & TF != 0;
    core.leave_block(false);
    Ok(())
}

/// INT3. Virtual-8086 mode neither checks IOPL nor redirects it.
pub fn int3(core: &mut Core, insn: &Insn) -> Done {
    let e = entry(core, insn, vector::BP);
    interrupt(core, &e)
}

/// INTO.
pub fn into(core: &mut Core, insn: &Insn) -> Done {
    if core.cond(Cond::O) {
        let e = entry(core, insn, vector::OF);
        return interrupt(core, &e);
    }
    let next = core.next_ip(insn);
    core.set_rip(next);
    Ok(())
}

/// INT1 (ICEBP): a debug exception that no gate's DPL keeps from the program and that leaves DR6
/// alone. Its delivery counts as external.
pub fn int1(core: &mut Core, insn: &Insn) -> Done {
    let e = Entry { checked: false, ..entry(core, insn, vector::DB) };
    let done = interrupt(core, &e);
    if let (Err(_), Some(failed)) = (done, core.exception.as_mut()) {
        failed.set_external();
    }
    done
}

/// BOUND.
pub fn bound(core: &mut Core, insn: &Insn) -> Done {
    let w = insn.opsize;
    let ea = core.ea(insn);
    let lower = core.load(w, insn.seg, ea)?;
    let upper = core.load(w, insn.seg, ea.wrapping_add(w.bytes()) & insn.ea_mask)?;
    let index = core.reg(w, insn.reg[0]);
    let signed = |v| sign_extend(w, v) as i64;
    let inside = (signed(lower)..=signed(upper)).contains(&signed(index));
    core.require(inside, Exception::plain(vector::BR, "BOUND: index out of range"))
}

/// UD0, UD1, UD2, and every opcode that is not defined.
pub fn undefined(core: &mut Core, _: &Insn) -> Done {
    Err(core.raise(Exception::ud("undefined opcode")))
}
