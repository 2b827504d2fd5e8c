//! The architectural state of one vCPU: plain data that can be copied, saved and compared.

use serde::{Deserialize, Serialize};

use crate::flags::LazyFlags;
use crate::x87::X87;

/// Number of slots in [`Vcpu::regs`]: 16 general registers, [`ZERO`], [`RIP`], and padding up to
/// a power of two, so that an index masked with `REG_SLOTS - 1` needs no bounds check.
pub const REG_SLOTS: usize = 32;
/// The slot that always reads as zero: a memory operand without base or index names it.
pub const ZERO: u8 = 16;
/// The slot of RIP (in 16- and 32-bit code: of IP or EIP, zero-extended).
///
/// While a block runs it holds the address of the block's *first* instruction;
/// [`crate::core::Core::rip`] is the address of the current one.
pub const RIP: u8 = 17;

/// Indices of the general registers in [`Vcpu::regs`].
#[allow(missing_docs)]
pub mod gpr {
    pub const RAX: u8 = 0;
    pub const RCX: u8 = 1;
    pub const RDX: u8 = 2;
    pub const RBX: u8 = 3;
    pub const RSP: u8 = 4;
    pub const RBP: u8 = 5;
    pub const RSI: u8 = 6;
    pub const RDI: u8 = 7;
}

/// A segment register, in encoding order (SDM vol. 2, 2.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum SegReg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl SegReg {
    /// All six, in encoding order.
    pub const ALL: [SegReg; 6] =
        [SegReg::Es, SegReg::Cs, SegReg::Ss, SegReg::Ds, SegReg::Fs, SegReg::Gs];

    /// The register with encoding `n`, modulo 8; 6 and 7 do not encode one.
    pub fn from_index(n: u8) -> Option<SegReg> {
        Self::ALL.get(n as usize).copied()
    }
}

/// A segment register with its hidden part (SDM vol. 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// Access rights as in bytes 5 and 6 of a descriptor: type (0-3), S (4), DPL (5-6), P (7),
    /// AVL (12), L (13), D/B (14), G (15). Bit 16 marks a segment that holds no usable descriptor.
    pub attr: u32,
    /// Highest offset, in bytes, granularity already applied.
    pub limit: u32,
    /// Linear address of offset 0.
    pub base: u64,
}

/// Bits of [`Segment::attr`].
#[allow(missing_docs)]
pub mod attr {
    pub const ACCESSED: u32 = 1;
    /// Data: writable. Code: readable.
    pub const RW: u32 = 1 << 1;
    /// Data: expand-down. Code: conforming.
    pub const DC: u32 = 1 << 2;
    pub const CODE: u32 = 1 << 3;
    /// Code or data (not a system descriptor).
    pub const S: u32 = 1 << 4;
    pub const P: u32 = 1 << 7;
    pub const L: u32 = 1 << 13;
    pub const DB: u32 = 1 << 14;
    pub const G: u32 = 1 << 15;
    /// The register was loaded with a null selector: no access through it.
    pub const UNUSABLE: u32 = 1 << 16;
}

impl Segment {
    /// Descriptor privilege level, 0-3.
    pub fn dpl(&self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }
    /// Descriptor type, 0-15 (SDM vol. 3, tables 3-1 and 3-2).
    pub fn kind(&self) -> u8 {
        (self.attr & 15) as u8
    }
    /// Whether all bits of `mask` (see [`attr`]) are set.
    pub fn has(&self, mask: u32) -> bool {
        self.attr & mask == mask
    }
    /// A segment as real-address mode and virtual-8086 mode load it: base = selector * 16.
    /// `attr` and `limit` are the caller's: real mode keeps those of the previous contents.
    pub fn real(selector: u16, attr: u32, limit: u32) -> Segment {
        Segment { selector, attr, limit, base: u64::from(selector) << 4 }
    }
}

/// A descriptor-table register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableReg {
    /// Linear address of the table.
    pub base: u64,
    /// Offset of the table's last byte.
    pub limit: u16,
}

/// The segment that a memory operand goes through, as the decoder resolved it: the register's
/// index, and whether it is flat (base 0, nothing to check on the fast path), as CS, DS, ES and SS
/// are in 64-bit mode and any 4 GiB writable data segment is in 32-bit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seg(u8);

impl Seg {
    const FLAT: u8 = 8;

    /// The segment is checked and its base added.
    pub const fn checked(reg: SegReg) -> Seg {
        Seg(reg as u8)
    }
    /// The effective address is the linear one.
    pub const fn flat(reg: SegReg) -> Seg {
        Seg(reg as u8 | Self::FLAT)
    }
    /// Whether the effective address is the linear one.
    #[inline(always)]
    pub const fn is_flat(self) -> bool {
        self.0 & Self::FLAT != 0
    }
    /// The register's index (encoding order), 0-5.
    #[inline(always)]
    pub const fn index(self) -> usize {
        (self.0 & 7) as usize
    }
    /// Whether accesses fault with #SS rather than #GP.
    pub const fn is_stack(self) -> bool {
        self.index() == SegReg::Ss as usize
    }
}

/// Banks of machine-check registers, as QEMU has them. Nothing is ever reported in them.
pub const MC_BANKS: usize = 10;

/// Control and model-specific registers that are plain storage; those with behaviour behind them
/// (APIC, TSC) are reached through the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct SystemRegs {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub xcr0: u64,
    pub pkru: u32,
    pub efer: u64,
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub tsc_aux: u64,
    pub tsc_offset: u64,
    pub tsc_adjust: u64,
    /// State of the generator behind RDRAND.
    pub prng: u64,
    pub spec_ctrl: u64,
    pub mtrr_def_type: u64,
    pub mtrr_fixed: [u64; 11],
    pub mtrr_var: [(u64, u64); 8],
    pub mcg_status: u64,
    pub mcg_ctl: u64,
    /// IA32_MCi_CTL.
    pub mc_ctl: [u64; MC_BANKS],
    /// TR3 to TR7 of the i486.
    pub test: [u32; 5],
    /// PAE page-directory-pointer registers, loaded by MOV to CR3 (SDM vol. 3, 4.4.1).
    pub pdptes: [u64; 4],
}

/// What the vCPU does when it is not executing instructions (SDM vol. 3, 8.4 and 26.6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Executing.
    #[default]
    Running,
    /// After HLT: waits for an interrupt, NMI or reset.
    Halted,
    /// After a triple fault: only a reset helps.
    Shutdown,
    /// An application processor waiting for SIPI.
    WaitForSipi,
}

/// All architectural state of a vCPU. Hot fields first: generated code reaches them with short
/// displacements.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[repr(C)]
pub struct Vcpu {
    /// RAX..R15 in encoding order, then [`ZERO`] and [`RIP`].
    pub regs: [u64; REG_SLOTS],
    /// The six status flags, lazily.
    pub flags: LazyFlags,
    /// RFLAGS without the status flags: TF, IF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID; bit 1 set.
    pub eflags: u64,
    /// Segment registers in encoding order.
    pub segs: [Segment; 6],
    /// XMM0-15: the lower halves of YMM0-15.
    pub xmm: [u128; 16],
    /// The upper halves of YMM0-15, right behind the lower ones: together they are the 32 vectors
    /// that [`crate::vector::VectorBackend::xmm`] numbers.
    pub ymm_high: [u128; 16],
    /// The SSE control and status register.
    pub mxcsr: u32,
    /// Current privilege level, 0-3 (the RPL of CS in protected mode, 0 in real mode, 3 in V86).
    pub cpl: u8,
    /// Interrupts are inhibited for one instruction, after STI or a load of SS (SDM vol. 3, 6.8.3).
    pub shadow: Shadow,
    /// An NMI is being handled: further ones wait for IRET.
    pub nmi_blocked: bool,
    /// See [`Activity`].
    pub activity: Activity,
    /// Debug-exception conditions collected by the current instruction (DR6 bits).
    pub pending_db: u64,
    /// A repetition stands between two of its iterations: an event that comes now pushes RF
    /// (SDM vol. 3, 18.3.1.1).
    pub repeating: bool,
    /// The x87 FPU, and through it MMX.
    pub x87: X87,
    /// FERR# is active: the board has been told of an x87 error.
    pub ferr: bool,
    /// Global descriptor table register.
    pub gdtr: TableReg,
    /// Interrupt descriptor table register.
    pub idtr: TableReg,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Control, debug and model-specific registers.
    pub sys: SystemRegs,
}

/// Which events the previous instruction holds off until the next one has completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shadow {
    /// None.
    #[default]
    None,
    /// After STI: maskable interrupts.
    Sti,
    /// After MOV SS or POP SS: also NMI and debug traps.
    MovSs,
}

/// Bits of RFLAGS.
#[allow(missing_docs)]
pub mod rflags {
    pub const CF: u64 = 1;
    pub const FIXED: u64 = 1 << 1;
    pub const PF: u64 = 1 << 2;
    pub const AF: u64 = 1 << 4;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    pub const TF: u64 = 1 << 8;
    pub const IF: u64 = 1 << 9;
    pub const DF: u64 = 1 << 10;
    pub const OF: u64 = 1 << 11;
    pub const IOPL: u64 = 3 << 12;
    pub const NT: u64 = 1 << 14;
    pub const RF: u64 = 1 << 16;
    pub const VM: u64 = 1 << 17;
    pub const AC: u64 = 1 << 18;
    pub const VIF: u64 = 1 << 19;
    pub const VIP: u64 = 1 << 20;
    pub const ID: u64 = 1 << 21;
    /// The six status flags.
    pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
}

/// Bits of CR0.
#[allow(missing_docs)]
pub mod cr0 {
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4.
#[allow(missing_docs)]
pub mod cr4 {
    pub const VME: u64 = 1;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
}

/// State components, as bits of XCR0 (SDM vol. 1, 13.1).
#[allow(missing_docs)]
pub mod xcr0 {
    pub const X87: u64 = 1;
    pub const SSE: u64 = 1 << 1;
    pub const AVX: u64 = 1 << 2;
    pub const PKRU: u64 = 1 << 9;
}

/// Bits of the EFER MSR.
#[allow(missing_docs)]
pub mod efer {
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
    pub const FFXSR: u64 = 1 << 14;
}

impl Vcpu {
    /// The state after power-up or RESET (SDM vol. 3, table 9-1). `signature` is what CPUID.1:EAX
    /// reports; EDX holds it after reset.
    pub fn new(signature: u32) -> Vcpu {
        const DATA: u32 = attr::P | attr::S | attr::RW | attr::ACCESSED;
        let data = Segment::real(0, DATA, 0xffff);
        let mut segs = [data; 6];
        segs[SegReg::Cs as usize] =
            Segment { selector: 0xf000, attr: DATA | attr::CODE, limit: 0xffff, base: 0xffff_0000 };
        let mut regs = [0; REG_SLOTS];
        regs[gpr::RDX as usize] = u64::from(signature);
        regs[RIP as usize] = 0xfff0;
        Vcpu {
            regs,
            flags: LazyFlags::from_rflags(0),
            eflags: rflags::FIXED,
            segs,
            xmm: [0; 16],
            ymm_high: [0; 16],
            mxcsr: 0x1f80,
            cpl: 0,
            shadow: Shadow::None,
            nmi_blocked: false,
            activity: Activity::Running,
            pending_db: 0,
            repeating: false,
            x87: X87::default(),
            ferr: false,
            gdtr: TableReg { base: 0, limit: 0xffff },
            idtr: TableReg { base: 0, limit: 0xffff },
            ldtr: Segment { attr: attr::P | 2, limit: 0xffff, ..Segment::default() },
            tr: Segment { attr: attr::P | 11, limit: 0xffff, ..Segment::default() },
            sys: SystemRegs {
                cr0: cr0::ET | cr0::NW | cr0::CD,
                xcr0: xcr0::X87,
                dr6: 0xffff_0ff0,
                dr7: 0x400,
                pat: 0x0007_0406_0007_0406,
                misc_enable: 1,
                ..SystemRegs::default()
            },
        }
    }

    /// RFLAGS, all of it.
    pub fn rflags(&self) -> u64 {
        self.eflags | self.flags.status()
    }

    /// Replaces all of RFLAGS; reserved bits become what the manual says (SDM vol. 1, 3.4.3).
    pub fn set_rflags(&mut self, v: u64) {
        const KEPT: u64 = 0x3f_7fd5 & !rflags::STATUS;
        self.eflags = v & KEPT | rflags::FIXED;
        self.flags = LazyFlags::from_rflags(v);
    }

    /// The segment register `s`.
    pub fn seg(&self, s: SegReg) -> &Segment {
        &self.segs[s as usize]
    }

    /// CR0.PE is set and EFLAGS.VM is not.
    pub fn protected(&self) -> bool {
        self.sys.cr0 & cr0::PE != 0 && self.eflags & rflags::VM == 0
    }
    /// EFLAGS.VM is set.
    pub fn v86(&self) -> bool {
        self.eflags & rflags::VM != 0
    }
    /// IA-32e mode is active (EFER.LMA): 64-bit or compatibility mode.
    pub fn long_mode(&self) -> bool {
        self.sys.efer & efer::LMA != 0
    }
    /// 64-bit mode: IA-32e mode and CS.L.
    pub fn code64(&self) -> bool {
        self.long_mode() && self.seg(SegReg::Cs).has(attr::L)
    }
    /// I/O privilege level, 0-3.
    pub fn iopl(&self) -> u8 {
        (self.eflags >> 12 & 3) as u8
    }
}
