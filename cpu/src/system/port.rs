//! IN, OUT, INS, OUTS and the I/O permission bitmap (SDM vol. 1, chapter 19).

use brolga_mmu::Width;
use iced_x86::Code;

use super::{Done, debug};
use crate::backend::Backend;
use crate::core::{By, Core, Exit};
use crate::exception::Exception;
use crate::insn::Insn;
use crate::semantics::string::{Ends, es, repeat_singly, step};
use crate::vcpu::{attr, gpr};

/// #GP(0) unless the program may access `w` bytes at `port`: by IOPL, or by the TSS's I/O
/// permission bitmap (SDM vol. 1, 19.5).
pub fn check_io(core: &mut Core, port: u16, w: Width) -> Done {
    let v = &core.vcpu;
    if v.protected() && v.cpl <= v.iopl() || !v.protected() && !v.v86() {
        return Ok(());
    }
    let tr = v.tr;
    let usable = !tr.has(attr::UNUSABLE) && tr.kind() & 8 != 0 && tr.limit >= 0x67;
    core.require(usable, Exception::gp("port access with CPL > IOPL, TSS without I/O bitmap"))?;
    let at = core.table_address(tr.base, 0x66);
    let map = core.read_linear(at, Width::W16, By::System)?;
    // Two bytes are read whatever the port: the map must end with a byte of ones.
    let offset = map + u64::from(port / 8);
    let ok = offset < u64::from(tr.limit);
    core.require(ok, Exception::gp("port beyond the I/O permission bitmap"))?;
    let at = core.table_address(tr.base, offset);
    let denied = core.read_linear(at, Width::W16, By::System)? >> (port & 7);
    let ok = denied & ((1 << w.bytes()) - 1) == 0;
    core.require(ok, Exception::gp("port denied by the I/O permission bitmap"))
}

fn read(core: &mut Core, port: u16, w: Width) -> u64 {
    let now = core.now();
    let v = core.bus.port_read(now, port, w) & w.mask();
    core.port_accessed(port, w.bytes(), false, v);
    after(core, port, w);
    v
}

fn write(core: &mut Core, port: u16, w: Width, v: u64) {
    let now = core.now();
    core.bus.port_write(now, port, w, v & w.mask());
    core.port_accessed(port, w.bytes(), true, v & w.mask());
    after(core, port, w);
}

fn after(core: &mut Core, port: u16, w: Width) {
    debug::port_access(core, port, w.bytes());
    if core.bus.take_replan() {
        core.leave_block(true);
    }
}

const fn is(insn: &Insn, code: Code) -> bool {
    insn.code == code as u16
}

/// Operand width and port of IN and OUT.
fn operands(core: &mut Core, insn: &Insn) -> (u16, Width) {
    let byte = is(insn, Code::In_AL_imm8)
        || is(insn, Code::In_AL_DX)
        || is(insn, Code::Out_imm8_AL)
        || is(insn, Code::Out_DX_AL);
    let by_register = is(insn, Code::In_AL_DX)
        || is(insn, Code::In_AX_DX)
        || is(insn, Code::In_EAX_DX)
        || is(insn, Code::Out_DX_AL)
        || is(insn, Code::Out_DX_AX)
        || is(insn, Code::Out_DX_EAX);
    let port =
        if by_register { core.reg(Width::W16, gpr::RDX) as u16 } else { insn.imm as u16 & 0xff };
    (port, if byte { Width::W8 } else { data_width(insn) })
}

/// Ports are at most 32 bits wide.
fn data_width(insn: &Insn) -> Width {
    insn.opsize.min(Width::W32)
}

/// IN.
pub fn input(core: &mut Core, insn: &Insn) -> Done {
    let (port, w) = operands(core, insn);
    check_io(core, port, w)?;
    let v = read(core, port, w);
    core.set_reg(w, gpr::RAX, v);
    Ok(())
}

/// OUT.
pub fn output(core: &mut Core, insn: &Insn) -> Done {
    let (port, w) = operands(core, insn);
    check_io(core, port, w)?;
    let v = core.reg(w, gpr::RAX);
    write(core, port, w, v);
    Ok(())
}

/// INS.
pub fn ins(core: &mut Core, insn: &Insn) -> Done {
    repeat_singly(core, insn, ins_once)
}

/// OUTS.
pub fn outs(core: &mut Core, insn: &Insn) -> Done {
    repeat_singly(core, insn, outs_once)
}

fn ins_once(core: &mut Core, insn: &Insn) -> Result<Ends, Exit> {
    let w = if is(insn, Code::Insb_m8_DX) { Width::W8 } else { data_width(insn) };
    let port = core.reg(Width::W16, gpr::RDX) as u16;
    check_io(core, port, w)?;
    let at = core.reg(insn.addrsize, gpr::RDI);
    // The port is read only once the destination is known to take the data.
    let (place, _) = core.modify(w, es(insn), at)?;
    let v = read(core, port, w);
    core.commit(place, w, v);
    step(core, insn, w, gpr::RDI);
    Ok(false)
}

fn outs_once(core: &mut Core, insn: &Insn) -> Result<Ends, Exit> {
    let w = if is(insn, Code::Outsb_DX_m8) { Width::W8 } else { data_width(insn) };
    let port = core.reg(Width::W16, gpr::RDX) as u16;
    check_io(core, port, w)?;
    let at = core.reg(insn.addrsize, gpr::RSI);
    let v = core.load(w, insn.seg, at)?;
    write(core, port, w, v);
    step(core, insn, w, gpr::RSI);
    Ok(false)
}
