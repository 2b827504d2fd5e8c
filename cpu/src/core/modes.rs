//! What is derived from the architectural state: the decode mode, the MMU index, the paging mode.

use brolga_mmu::{Linear, MmuIndex, PagingKind, PagingMode};

use super::memory::is_canonical;
use super::{Core, Mode};
use crate::cpuid::Feature;
use crate::vcpu::{SegReg, Segment, Vcpu, attr, cr0, cr4, efer, rflags};
use crate::vector::mxcsr;

impl Core {
    /// Recomputes everything derived. To be called after a change of CS, SS, DS or ES, CPL, CR0,
    /// CR3's format, CR4, EFER, DR7, EFLAGS.VM, EFLAGS.AC, or the exception masks of MXCSR or the x87. Drops all translations if the rules of
    /// paging have changed.
    pub fn mode_changed(&mut self) {
        self.mode = decode_mode(&self.vcpu, self.alignment_checked());
        let index = match self.vcpu.cpl {
            3 => MmuIndex::User,
            _ if self.vcpu.eflags & rflags::AC != 0 => MmuIndex::SupervisorNoSmap,
            _ => MmuIndex::Supervisor,
        };
        self.mem.tlb.set_index(index);
        let paging = self.paging_mode();
        if paging != self.mem.paging {
            self.mem.paging = paging;
            self.mem.tlb.flush_all();
        }
    }

    /// Writes PKRU. What the TLB holds stays right unless it has entered a page with a key whose
    /// rights change.
    pub(crate) fn set_pkru(&mut self, v: u32) {
        let changed = self.vcpu.sys.pkru ^ v;
        self.vcpu.sys.pkru = v;
        if self.mem.paging.pkru.is_none() {
            return;
        }
        self.mem.paging.pkru = Some(v);
        let used = |key: u32| self.mem.keys >> key & 1 != 0;
        if (0..16).any(|key| used(key) && changed >> (2 * key) & 3 != 0) {
            self.mem.tlb.flush_all();
            self.mem.keys = 0;
        }
    }

    /// Whether `v` is a canonical address (SDM vol. 1, 3.3.7.1).
    #[inline(always)]
    pub fn is_canonical(&self, v: u64) -> bool {
        is_canonical(v, self.mode.linear_bits())
    }

    /// Whether `v` may be the base of a segment or a table, or an address in an MSR: processors with
    /// LA57 take addresses of 57 bits there and in what invalidates the TLB, whatever CR4.LA57 says
    /// (Linux, "KVM: x86: Add X86EMUL_F_MSR and X86EMUL_F_DT_LOAD to fix canonical checks").
    pub fn is_canonical_base(&self, v: u64) -> bool {
        is_canonical(v, if self.model.has(Feature::La57) { 57 } else { 48 })
    }

    /// Alignment checks are on: CR0.AM, EFLAGS.AC, CPL 3.
    #[inline]
    pub(crate) fn alignment_checked(&self) -> bool {
        self.vcpu.cpl == 3 && self.vcpu.eflags & rflags::AC != 0 && self.vcpu.sys.cr0 & cr0::AM != 0
    }

    /// Whether a data breakpoint, the guest's or the debugger's, lies in the page of `at`.
    pub(super) fn watched(&self, at: Linear) -> bool {
        let sys = &self.vcpu.sys;
        (0..4).any(|n| {
            let enabled = sys.dr7 >> (2 * n) & 3 != 0;
            let data = sys.dr7 >> (16 + 4 * n) & 1 != 0;
            enabled && data && Linear(sys.dr[n]).page_number() == at.page_number()
        }) || self.stops.watches_page(at)
    }

    fn paging_mode(&self) -> PagingMode {
        let sys = &self.vcpu.sys;
        let has = |f| self.model.has(f);
        let on = |bit: u64| sys.cr4 & bit != 0;
        let long = sys.efer & efer::LMA != 0;
        let kind = if sys.cr0 & cr0::PG == 0 {
            PagingKind::None
        } else if long && on(cr4::LA57) {
            PagingKind::FiveLevel
        } else if long {
            PagingKind::FourLevel
        } else if on(cr4::PAE) {
            PagingKind::Pae
        } else {
            PagingKind::Legacy32 { pse: on(cr4::PSE) }
        };
        PagingMode {
            kind,
            wp: sys.cr0 & cr0::WP != 0,
            smep: on(cr4::SMEP),
            smap: on(cr4::SMAP),
            nxe: sys.efer & efer::NXE != 0,
            pge: on(cr4::PGE),
            pcide: on(cr4::PCIDE),
            pkru: (long && on(cr4::PKE)).then_some(sys.pkru),
            pse36: has(Feature::Pse36),
            pat: has(Feature::Pat),
            gb_pages: has(Feature::Pdpe1gb),
            max_phys_bits: self.model.phys_bits(),
        }
    }
}

fn decode_mode(v: &Vcpu, alignment_checked: bool) -> Mode {
    let cs = v.seg(SegReg::Cs);
    let code64 = v.code64();
    let flat = |s: SegReg| !alignment_checked && is_flat_data(v.seg(s));
    Mode::default()
        .with(Mode::CODE64, code64)
        .with(Mode::ALIGNMENT_CHECKED, alignment_checked)
        .with(Mode::CODE32, !code64 && cs.has(attr::DB))
        .with(Mode::STACK32, !code64 && v.seg(SegReg::Ss).has(attr::DB))
        .with(Mode::CS_FLAT, code64 || cs.base == 0 && cs.limit == u32::MAX)
        .with(Mode::DS_FLAT, flat(SegReg::Ds))
        .with(Mode::ES_FLAT, flat(SegReg::Es))
        .with(Mode::SS_FLAT, flat(SegReg::Ss))
        .with(Mode::FPU_EMULATE, v.sys.cr0 & cr0::EM != 0)
        .with(Mode::TASK_SWITCHED, v.sys.cr0 & cr0::TS != 0)
        .with(Mode::MONITOR_COPROCESSOR, v.sys.cr0 & cr0::MP != 0)
        .with(Mode::OSFXSR, v.sys.cr4 & cr4::OSFXSR != 0)
        .with(Mode::USER, v.cpl == 3)
        .with(Mode::SIMD_UNMASKED, v.mxcsr & mxcsr::MASKS != mxcsr::MASKS)
        .with(Mode::X87_UNMASKED, !v.x87.masks_all())
        .with(Mode::PROTECTED, v.protected())
        .with(Mode::LA57, v.sys.cr4 & cr4::LA57 != 0)
}

/// Base 0, limit 4 GiB, writable, expand-up: accesses need no check.
fn is_flat_data(s: &Segment) -> bool {
    s.base == 0
        && s.limit == u32::MAX
        && s.attr & (attr::CODE | attr::DC | attr::UNUSABLE | attr::RW | attr::P | attr::S)
            == attr::RW | attr::P | attr::S
}
