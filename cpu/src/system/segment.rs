//! Loading segment registers and asking about descriptors (SDM vol. 3, 3.4 and 5.5-5.10).

use brolga_mmu::Width;

use super::descriptor::{fetch, kind, null_segment, set_accessed};
use super::stack::Stack;
use super::{Done, gp_on, is_null, on_selector, rpl};
use crate::backend::Backend;
use crate::core::{Core, Exit};
use crate::exception::{Exception, vector};
use crate::insn::{Insn, bits};
use crate::vcpu::{SegReg, Segment, Shadow, attr, gpr};

/// Access rights of every segment in virtual-8086 mode: present, writable, accessed, DPL 3.
pub(super) const V86_RIGHTS: u32 = attr::P | 3 << 5 | attr::S | attr::RW | attr::ACCESSED;

/// What loading `selector` makes of `reg` in real-address or virtual-8086 mode.
pub(super) fn real_segment(core: &Core, reg: SegReg, selector: u16) -> Segment {
    let code = if reg == SegReg::Cs { attr::CODE } else { 0 };
    if core.vcpu.v86() {
        return Segment::real(selector, V86_RIGHTS | code, 0xffff);
    }
    // Real-address mode keeps limit and size of the previous contents ("unreal mode").
    let old = core.vcpu.seg(reg);
    let rights = attr::P | attr::S | attr::RW | attr::ACCESSED | code;
    if old.has(attr::UNUSABLE) {
        Segment::real(selector, rights, 0xffff)
    } else {
        Segment::real(selector, rights | old.attr & (attr::DB | attr::G), old.limit)
    }
}

/// Checks and fetches a segment for DS, ES, FS or GS at privilege level `cpl`. `bad` is the vector
/// for a selector that does not fit: #GP, or #TS in a task switch.
pub(super) fn data_segment(
    core: &mut Core,
    selector: u16,
    cpl: u8,
    bad: u8,
) -> Result<Segment, Exit> {
    if is_null(selector) {
        return Ok(null_segment(selector, 0));
    }
    let mut d = fetch(core, selector, bad)?;
    core.require(d.readable(), on_selector(bad, selector, "not a data or readable code segment"))?;
    core.require(
        d.conforming() || rpl(selector).max(cpl) <= d.dpl(),
        on_selector(bad, selector, "data segment more privileged than CPL or RPL"),
    )?;
    core.require(d.present(), on_selector(vector::NP, selector, "segment not present"))?;
    set_accessed(core, &mut d)?;
    Ok(d.segment(selector))
}

/// Checks and fetches a stack segment, not null, for privilege level `cpl`.
pub(super) fn stack_segment(
    core: &mut Core,
    selector: u16,
    cpl: u8,
    bad: u8,
) -> Result<Segment, Exit> {
    core.require(!is_null(selector), on_selector(bad, selector, "null stack selector"))?;
    let mut d = fetch(core, selector, bad)?;
    core.require(
        rpl(selector) == cpl,
        on_selector(bad, selector, "RPL of the stack selector is not CPL"),
    )?;
    core.require(d.writable(), on_selector(bad, selector, "stack segment not writable"))?;
    core.require(
        d.dpl() == cpl,
        on_selector(bad, selector, "DPL of the stack segment is not CPL"),
    )?;
    core.require(d.present(), on_selector(vector::SS, selector, "stack segment not present"))?;
    set_accessed(core, &mut d)?;
    Ok(d.segment(selector))
}

/// The contents of `reg` after MOV, POP or LxS with `selector`, in any mode.
fn checked(core: &mut Core, reg: SegReg, selector: u16) -> Result<Segment, Exit> {
    if !core.vcpu.protected() {
        return Ok(real_segment(core, reg, selector));
    }
    let cpl = core.vcpu.cpl;
    if reg != SegReg::Ss {
        return data_segment(core, selector, cpl, vector::GP);
    }
    // 64-bit mode takes a null SS outside CPL 3 (SDM vol. 2, MOV).
    if is_null(selector) && core.vcpu.code64() && cpl != 3 && rpl(selector) == cpl {
        return Ok(null_segment(selector, cpl));
    }
    core.require(!is_null(selector), Exception::gp("null selector for SS"))?;
    stack_segment(core, selector, cpl, vector::GP)
}

/// Holds off interrupts and debug traps until the instruction after a load of SS is done.
fn shadow_ss(core: &mut Core, reg: SegReg) {
    if reg == SegReg::Ss {
        core.vcpu.shadow = Shadow::MovSs;
        core.leave_block(false);
    }
}

/// The segment register that operand `i` names, for a load.
fn loadable(core: &mut Core, n: u8) -> Result<SegReg, Exit> {
    match SegReg::from_index(n) {
        Some(reg) if reg != SegReg::Cs => Ok(reg),
        _ => Err(core.raise(Exception::ud("no such segment register to load"))),
    }
}

/// MOV Sreg, r/m16.
pub fn mov_to_sreg(core: &mut Core, insn: &Insn) -> Done {
    let reg = loadable(core, insn.reg[0])?;
    let selector = core.rm16(insn, 1)?;
    let segment = checked(core, reg, selector)?;
    core.set_segment(reg, segment);
    shadow_ss(core, reg);
    Ok(())
}

/// MOV r/m16, Sreg; MOV r32/64, Sreg.
pub fn mov_from_sreg(core: &mut Core, insn: &Insn) -> Done {
    match SegReg::from_index(insn.reg[1]) {
        Some(reg) => {
            let selector = core.vcpu.seg(reg).selector;
            core.set_rm16(insn, selector.into())
        }
        None => Err(core.raise(Exception::ud("no such segment register"))),
    }
}

/// PUSH Sreg. With a 32-bit operand, current processors write only the low half of the slot
/// (SDM vol. 2, PUSH).
pub fn push_sreg(core: &mut Core, insn: &Insn) -> Done {
    let Some(reg) = SegReg::from_index(insn.reg[0]) else {
        return Err(core.raise(Exception::ud("no such segment register")));
    };
    let selector = core.vcpu.seg(reg).selector.into();
    let sp = core.reg(insn.stack, gpr::RSP).wrapping_sub(insn.opsize.bytes()) & insn.stack.mask();
    let w = if insn.opsize == Width::W32 { Width::W16 } else { insn.opsize };
    core.store(w, insn.stack_seg, sp, selector)?;
    core.set_reg(insn.stack, gpr::RSP, sp);
    Ok(())
}

/// POP Sreg.
pub fn pop_sreg(core: &mut Core, insn: &Insn) -> Done {
    let reg = loadable(core, insn.reg[0])?;
    let stack = Stack::current(core);
    let w = if insn.opsize == Width::W32 { Width::W16 } else { insn.opsize };
    let selector = stack.peek(core, w, 0)? as u16;
    let segment = checked(core, reg, selector)?;
    stack.commit(core, insn.opsize.bytes());
    core.set_segment(reg, segment);
    shadow_ss(core, reg);
    Ok(())
}

fn load_far(core: &mut Core, insn: &Insn, reg: SegReg) -> Done {
    let ea = core.ea(insn);
    let offset = core.load(insn.opsize, insn.seg, ea)?;
    let next = ea.wrapping_add(insn.opsize.bytes()) & insn.ea_mask;
    let selector = core.load(Width::W16, insn.seg, next)? as u16;
    let segment = checked(core, reg, selector)?;
    core.set_segment(reg, segment);
    core.set_reg(insn.opsize, insn.reg[0], offset);
    Ok(())
}

/// LDS.
pub fn lds(core: &mut Core, insn: &Insn) -> Done {
    load_far(core, insn, SegReg::Ds)
}
/// LES.
pub fn les(core: &mut Core, insn: &Insn) -> Done {
    load_far(core, insn, SegReg::Es)
}
/// LFS.
pub fn lfs(core: &mut Core, insn: &Insn) -> Done {
    load_far(core, insn, SegReg::Fs)
}
/// LGS.
pub fn lgs(core: &mut Core, insn: &Insn) -> Done {
    load_far(core, insn, SegReg::Gs)
}
/// LSS. It switches the whole stack pointer at once, so it needs no interrupt shadow.
pub fn lss(core: &mut Core, insn: &Insn) -> Done {
    load_far(core, insn, SegReg::Ss)
}

/// The descriptor of `selector` if the current program may ask about it; `None` clears ZF.
/// Selectors outside their table do not fault here.
fn probe(core: &mut Core, selector: u16) -> Result<Option<super::descriptor::Descriptor>, Exit> {
    if is_null(selector) {
        return Ok(None);
    }
    let table_limit = match selector & 4 {
        0 => u64::from(core.vcpu.gdtr.limit),
        _ if core.vcpu.ldtr.has(attr::UNUSABLE) => return Ok(None),
        _ => u64::from(core.vcpu.ldtr.limit),
    };
    if u64::from(selector & !7) + 7 > table_limit {
        return Ok(None);
    }
    let d = fetch(core, selector, vector::GP)?;
    let visible = d.conforming() || rpl(selector).max(core.vcpu.cpl) <= d.dpl();
    Ok(visible.then_some(d))
}

/// LAR.
pub fn lar(core: &mut Core, insn: &Insn) -> Done {
    use kind::{CALL16, CALL32, LDT, TASK_GATE, TSS16, TSS16_BUSY, TSS32, TSS32_BUSY};
    core.require_protected()?;
    let selector = core.rm16(insn, 1)?;
    let long = core.vcpu.long_mode();
    let found = probe(core, selector)?.filter(|d| {
        !d.system()
            || match d.kind() {
                LDT | TSS32 | TSS32_BUSY | CALL32 => true,
                TSS16 | TSS16_BUSY | CALL16 | TASK_GATE => !long,
                _ => false,
            }
    });
    if let Some(d) = found {
        let rights = d.low >> 32 & 0x00f0_ff00;
        core.set_reg(insn.opsize, insn.reg[0], rights & insn.opsize.mask());
    }
    core.set_zf(found.is_some());
    Ok(())
}

/// LSL.
pub fn lsl(core: &mut Core, insn: &Insn) -> Done {
    use kind::{LDT, TSS16, TSS16_BUSY, TSS32, TSS32_BUSY};
    core.require_protected()?;
    let selector = core.rm16(insn, 1)?;
    let long = core.vcpu.long_mode();
    let found = probe(core, selector)?.filter(|d| {
        !d.system()
            || match d.kind() {
                LDT | TSS32 | TSS32_BUSY => true,
                TSS16 | TSS16_BUSY => !long,
                _ => false,
            }
    });
    if let Some(d) = found {
        core.set_reg(insn.opsize, insn.reg[0], u64::from(d.limit()) & insn.opsize.mask());
    }
    core.set_zf(found.is_some());
    Ok(())
}

/// VERR.
pub fn verr(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    let selector = core.rm16(insn, 0)?;
    let ok = probe(core, selector)?.is_some_and(|d| d.readable());
    core.set_zf(ok);
    Ok(())
}

/// VERW.
pub fn verw(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    let selector = core.rm16(insn, 0)?;
    let ok = probe(core, selector)?.is_some_and(|d| d.writable());
    core.set_zf(ok);
    Ok(())
}

/// ARPL.
pub fn arpl(core: &mut Core, insn: &Insn) -> Done {
    core.require_protected()?;
    let destination = core.rm16(insn, 0)?;
    let wanted = core.reg(Width::W16, insn.reg[1]) as u16 & 3;
    let raise = destination & 3 < wanted;
    if raise {
        let adjusted = u64::from(destination & !3 | wanted);
        if insn.has(bits::MEM0) {
            let ea = core.ea(insn);
            core.store(Width::W16, insn.seg, ea, adjusted)?;
        } else {
            core.set_reg(Width::W16, insn.reg[0], adjusted);
        }
    }
    core.set_zf(raise);
    Ok(())
}

/// SWAPGS.
pub fn swapgs(core: &mut Core, _: &Insn) -> Done {
    let ok = core.vcpu.code64();
    core.require(ok, Exception::ud("SWAPGS outside 64-bit mode"))?;
    core.require_cpl0()?;
    let v = &mut core.vcpu;
    std::mem::swap(&mut v.segs[SegReg::Gs as usize].base, &mut v.sys.kernel_gs_base);
    Ok(())
}

fn require_fsgsbase(core: &mut Core) -> Done {
    let ok = core.vcpu.code64() && core.vcpu.sys.cr4 & crate::vcpu::cr4::FSGSBASE != 0;
    core.require(ok, Exception::ud("CR4.FSGSBASE is clear, or not 64-bit mode"))
}

fn read_base(core: &mut Core, insn: &Insn, reg: SegReg) -> Done {
    require_fsgsbase(core)?;
    let base = core.vcpu.seg(reg).base;
    core.set_reg(insn.opsize, insn.reg[0], base & insn.opsize.mask());
    Ok(())
}

fn write_base(core: &mut Core, insn: &Insn, reg: SegReg) -> Done {
    require_fsgsbase(core)?;
    let base = core.reg(insn.opsize, insn.reg[0]);
    core.require(core.is_canonical_base(base), Exception::gp("segment base is not canonical"))?;
    core.vcpu.segs[reg as usize].base = base;
    Ok(())
}

/// RDFSBASE.
pub fn rdfsbase(core: &mut Core, insn: &Insn) -> Done {
    read_base(core, insn, SegReg::Fs)
}
/// RDGSBASE.
pub fn rdgsbase(core: &mut Core, insn: &Insn) -> Done {
    read_base(core, insn, SegReg::Gs)
}
/// WRFSBASE.
pub fn wrfsbase(core: &mut Core, insn: &Insn) -> Done {
    write_base(core, insn, SegReg::Fs)
}
/// WRGSBASE.
pub fn wrgsbase(core: &mut Core, insn: &Insn) -> Done {
    write_base(core, insn, SegReg::Gs)
}

/// Makes a data segment register that `cpl` may not use null, as a return to an outer level does
/// (SDM vol. 2, RET and IRET).
pub(super) fn hide_privileged_segments(core: &mut Core, cpl: u8) {
    for reg in [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs] {
        let segment = *core.vcpu.seg(reg);
        let conforming = segment.has(attr::CODE | attr::DC);
        if !segment.has(attr::UNUSABLE) && !conforming && segment.dpl() < cpl {
            // The base stays, which 64-bit mode could still see in FS and GS.
            core.set_segment(reg, Segment { base: segment.base, ..null_segment(0, 0) });
        }
    }
}

/// #GP(selector) unless a code descriptor's L and D flags fit together: both set is reserved in
/// IA-32e mode.
pub(super) fn check_code_size(
    core: &mut Core,
    d: &super::descriptor::Descriptor,
    selector: u16,
) -> Done {
    let reserved = core.vcpu.long_mode() && d.has(attr::L | attr::DB);
    core.require(!reserved, gp_on(selector, "code segment has both L and D set"))
}
