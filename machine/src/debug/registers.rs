//! The vCPU's registers by their names in a debugger.

use brolga_cpu::softfloat::F80;
use brolga_cpu::vcpu::{Activity, RIP, SegReg, Segment, attr, cr0, efer};
use brolga_cpu::x87::ImageFormat;
use brolga_gdb::layout::{Fpu, Register, Table};
use brolga_gdb::{DebugError, DebugTarget};

use crate::board::lock;
use crate::machine::Machine;

/// The x87 state in memory's form, whose fields debuggers show.
const X87_FORMAT: ImageFormat = ImageFormat::Protected32;
/// Offsets there.
const X87_REGISTERS: usize = 28;

pub(super) fn read(machine: &Machine, register: Register) -> u128 {
    let vcpu = &machine.core().vcpu;
    let sys = &vcpu.sys;
    match register {
        Register::General(n) => vcpu.regs[usize::from(n & 15)].into(),
        Register::Pc => machine.registers().linear_rip().into(),
        Register::Offset => vcpu.regs[usize::from(RIP)].into(),
        Register::Flags => vcpu.rflags().into(),
        Register::Selector(n) => segment(machine, n).selector.into(),
        Register::Base(n) => segment(machine, n).base.into(),
        Register::St(n) => {
            let F80 { sig, se } = vcpu.x87.st(n);
            u128::from(se) << 64 | u128::from(sig)
        }
        Register::Fpu(field) => fpu_field(machine, field).into(),
        Register::Xmm(n) => vcpu.xmm[usize::from(n & 15)],
        Register::Mxcsr => vcpu.mxcsr.into(),
        Register::Cr(0) => sys.cr0.into(),
        Register::Cr(2) => sys.cr2.into(),
        Register::Cr(3) => sys.cr3.into(),
        Register::Cr(4) => sys.cr4.into(),
        Register::Cr(_) => lock(&machine.chipset).task_priority().into(),
        Register::Dr(6) => sys.dr6.into(),
        Register::Dr(7) => sys.dr7.into(),
        Register::Dr(n) => sys.dr[usize::from(n & 3)].into(),
        Register::Efer => sys.efer.into(),
        Register::KernelGsBase => sys.kernel_gs_base.into(),
        Register::Cpl => vcpu.cpl.into(),
        Register::CodeBits => machine.registers().code_bits().into(),
        Register::Table(table) => match table {
            Table::GdtBase => vcpu.gdtr.base.into(),
            Table::GdtLimit => vcpu.gdtr.limit.into(),
            Table::IdtBase => vcpu.idtr.base.into(),
            Table::IdtLimit => vcpu.idtr.limit.into(),
            Table::Ldt => vcpu.ldtr.selector.into(),
            Table::LdtBase => vcpu.ldtr.base.into(),
            Table::Task => vcpu.tr.selector.into(),
            Table::TaskBase => vcpu.tr.base.into(),
        },
    }
}

fn segment(machine: &Machine, n: u8) -> &Segment {
    let register = SegReg::from_index(n).unwrap_or(SegReg::Ds);
    machine.core().vcpu.seg(register)
}

/// Where a field of the x87 environment lies in its image: word and shift, and how wide it is.
fn fpu_place(field: Fpu) -> (usize, u32, u32) {
    match field {
        Fpu::Control => (0, 0, 0xffff),
        Fpu::Status => (1, 0, 0xffff),
        Fpu::Tag => (2, 0, 0xffff),
        Fpu::CodeOffset => (3, 0, u32::MAX),
        Fpu::CodeSegment => (4, 0, 0xffff),
        Fpu::Opcode => (4, 16, 0x7ff),
        Fpu::DataOffset => (5, 0, u32::MAX),
        Fpu::DataSegment => (6, 0, 0xffff),
    }
}

fn fpu_word(image: &[u8], word: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&image[4 * word..4 * word + 4]);
    u32::from_le_bytes(bytes)
}

fn fpu_field(machine: &Machine, field: Fpu) -> u32 {
    let image = machine.core().vcpu.x87.environment(X87_FORMAT);
    let (word, shift, mask) = fpu_place(field);
    fpu_word(image.as_bytes(), word) >> shift & mask
}

pub(super) fn write(
    machine: &mut Machine,
    register: Register,
    value: u128,
) -> Result<(), DebugError> {
    let long_mode = machine.has_long_mode();
    let core = machine.accel.core_mut();
    let canonical = core.is_canonical_base(value as u64);
    let (vcpu, wide) = (&mut core.vcpu, value as u64);
    match register {
        Register::General(n) => vcpu.regs[usize::from(n & 15)] = wide,
        Register::Pc => return set_pc(machine, wide),
        Register::Offset => vcpu.regs[usize::from(RIP)] = wide,
        Register::Flags => vcpu.set_rflags(wide),
        Register::Selector(n) => return set_selector(machine, n, value as u16),
        Register::Base(n) => {
            let reg = SegReg::from_index(n).ok_or(DebugError::BadValue)?;
            require(!long_mode || canonical)?;
            vcpu.segs[reg as usize].base = wide;
        }
        Register::St(_) | Register::Fpu(_) => set_x87(machine, register, value),
        Register::Xmm(n) => vcpu.xmm[usize::from(n & 15)] = value,
        Register::Mxcsr => {
            require(value <= 0xffff)?;
            vcpu.mxcsr = value as u32;
        }
        Register::Cr(2) => vcpu.sys.cr2 = wide,
        Register::Cr(8) => {
            require(wide <= 15)?;
            lock(&machine.chipset).set_task_priority(wide as u8);
        }
        Register::Cr(n) => set_control(machine, n, wide),
        Register::Dr(6) => vcpu.sys.dr6 = wide,
        Register::Dr(7) => vcpu.sys.dr7 = wide,
        Register::Dr(n) => vcpu.sys.dr[usize::from(n & 3)] = wide,
        Register::Efer => vcpu.sys.efer = wide,
        Register::KernelGsBase => vcpu.sys.kernel_gs_base = wide,
        Register::Table(table) => match table {
            Table::GdtBase => vcpu.gdtr.base = wide,
            Table::GdtLimit => vcpu.gdtr.limit = value as u16,
            Table::IdtBase => vcpu.idtr.base = wide,
            Table::IdtLimit => vcpu.idtr.limit = value as u16,
            Table::Ldt => vcpu.ldtr.selector = value as u16,
            Table::LdtBase => vcpu.ldtr.base = wide,
            Table::Task => vcpu.tr.selector = value as u16,
            Table::TaskBase => vcpu.tr.base = wide,
        },
        Register::Cpl => {
            require(wide <= 3)?;
            vcpu.cpl = wide as u8;
        }
        Register::CodeBits => return Err(DebugError::BadValue),
    }
    let core = machine.accel.core_mut();
    core.mode_changed();
    if matches!(register, Register::Dr(_)) {
        // Pages with data breakpoints must miss the TLB's fast path.
        core.mem.tlb.flush_all();
    }
    Ok(())
}

fn require(ok: bool) -> Result<(), DebugError> {
    if ok { Ok(()) } else { Err(DebugError::BadValue) }
}

/// Goes on at a linear address, in the current code segment. A CPU that has halted runs again.
fn set_pc(machine: &mut Machine, at: u64) -> Result<(), DebugError> {
    let is_64_bit = machine.registers().is_64_bit();
    let core = machine.accel.core_mut();
    let canonical = core.is_canonical(at);
    let vcpu = &mut core.vcpu;
    let ip = if is_64_bit {
        require(canonical)?;
        at
    } else {
        at.wrapping_sub(vcpu.seg(SegReg::Cs).base) & 0xffff_ffff
    };
    vcpu.regs[usize::from(RIP)] = ip;
    vcpu.activity = Activity::Running;
    vcpu.repeating = false;
    Ok(())
}

/// Loads a segment register as the guest would, but without any check.
fn set_selector(machine: &mut Machine, n: u8, selector: u16) -> Result<(), DebugError> {
    let reg = SegReg::from_index(n).ok_or(DebugError::BadValue)?;
    let vcpu = &machine.core().vcpu;
    let old = *vcpu.seg(reg);
    let loaded = if !vcpu.protected() {
        Segment::real(selector, old.attr, old.limit)
    } else if selector & !3 == 0 {
        Segment { selector, attr: attr::UNUSABLE, limit: 0, base: 0 }
    } else {
        described(machine, selector)?
    };
    let vcpu = &mut machine.accel.core_mut().vcpu;
    vcpu.segs[reg as usize] = loaded;
    if reg == SegReg::Cs && vcpu.protected() {
        vcpu.cpl = (selector & 3) as u8;
    }
    machine.accel.core_mut().mode_changed();
    Ok(())
}

/// What the descriptor that `selector` names describes (SDM vol. 3, 3.4.5).
fn described(machine: &Machine, selector: u16) -> Result<Segment, DebugError> {
    let vcpu = &machine.core().vcpu;
    let table = if selector & 4 == 0 { vcpu.gdtr.base } else { vcpu.ldtr.base };
    let at = table.wrapping_add(u64::from(selector & !7));
    let mut bytes = [0; 8];
    if machine.read_linear(at, &mut bytes) < bytes.len() {
        return Err(DebugError::NotMapped(at));
    }
    Ok(super::monitor::descriptor(selector, u64::from_le_bytes(bytes)))
}

/// CR0, CR3 or CR4. What depends on them follows; EFER.LMA is what it has to be.
fn set_control(machine: &mut Machine, n: u8, value: u64) {
    let core = machine.accel.core_mut();
    let sys = &mut core.vcpu.sys;
    match n {
        0 => sys.cr0 = value | cr0::ET,
        3 => sys.cr3 = value,
        _ => sys.cr4 = value,
    }
    let active = sys.efer & efer::LME != 0 && sys.cr0 & cr0::PG != 0;
    sys.efer = sys.efer & !efer::LMA | if active { efer::LMA } else { 0 };
    core.mem.tlb.flush_all();
}

fn set_x87(machine: &mut Machine, register: Register, value: u128) {
    let x87 = &mut machine.accel.core_mut().vcpu.x87;
    let mut state = x87.saved_state(X87_FORMAT).as_bytes().to_vec();
    match register {
        Register::St(n) => {
            let at = X87_REGISTERS + 10 * usize::from(n & 7);
            state[at..at + 10].copy_from_slice(&value.to_le_bytes()[..10]);
        }
        Register::Fpu(field) => {
            let (word, shift, mask) = fpu_place(field);
            let kept = fpu_word(&state, word) & !(mask << shift);
            let new = kept | (value as u32 & mask) << shift;
            state[4 * word..4 * word + 4].copy_from_slice(&new.to_le_bytes());
        }
        _ => {}
    }
    x87.restore_state(X87_FORMAT, &state);
}
