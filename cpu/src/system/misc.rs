//! Counters, caches and the random-number generator.

use brolga_mmu::Width;

use super::Done;
use crate::backend::Backend;
use crate::core::Core;
use crate::exception::Exception;
use crate::flags::LazyFlags;
use crate::insn::Insn;
use crate::vcpu::{cr4, gpr, rflags};

impl Core {
    /// EDX:EAX.
    pub(super) fn pair(&mut self) -> u64 {
        self.reg(Width::W32, gpr::RDX) << 32 | self.reg(Width::W32, gpr::RAX)
    }

    /// Sets EDX:EAX; in 64-bit mode the upper halves of RDX and RAX become 0.
    pub(super) fn set_pair(&mut self, v: u64) {
        self.set_reg(Width::W32, gpr::RAX, v & 0xffff_ffff);
        self.set_reg(Width::W32, gpr::RDX, v >> 32);
    }

    /// The time-stamp counter as the guest sees it.
    pub fn tsc(&mut self) -> u64 {
        let now = self.now();
        self.bus.tsc(now).wrapping_add(self.vcpu.sys.tsc_offset)
    }
}

fn check_tsd(core: &mut Core) -> Done {
    let ok = core.vcpu.sys.cr4 & cr4::TSD == 0 || core.vcpu.cpl == 0;
    core.require(ok, Exception::gp("RDTSC at CPL > 0 with CR4.TSD set"))
}

/// RDTSC.
pub fn rdtsc(core: &mut Core, _: &Insn) -> Done {
    check_tsd(core)?;
    let tsc = core.tsc();
    core.set_pair(tsc);
    Ok(())
}

/// RDTSCP.
pub fn rdtscp(core: &mut Core, _: &Insn) -> Done {
    check_tsd(core)?;
    let tsc = core.tsc();
    core.set_pair(tsc);
    let aux = core.vcpu.sys.tsc_aux & 0xffff_ffff;
    core.set_reg(Width::W32, gpr::RCX, aux);
    Ok(())
}

/// RDPID.
pub fn rdpid(core: &mut Core, insn: &Insn) -> Done {
    let aux = core.vcpu.sys.tsc_aux & 0xffff_ffff;
    core.set_reg(core.native_width(), insn.reg[0], aux);
    Ok(())
}

/// RDPMC. No model has performance counters: every index is undefined.
pub fn rdpmc(core: &mut Core, _: &Insn) -> Done {
    Err(core.raise(Exception::gp("RDPMC of a counter that does not exist")))
}

/// WBINVD, WBNOINVD and INVD: there is no cache to write back.
pub fn wbinvd(core: &mut Core, _: &Insn) -> Done {
    core.require_cpl0()
}

/// CLFLUSH, CLFLUSHOPT and CLWB: checked as a load, and nothing else.
pub fn clflush(core: &mut Core, insn: &Insn) -> Done {
    let ea = core.ea(insn);
    core.load(Width::W8, insn.seg, ea).map(drop)
}

/// RDRAND and RDSEED: SplitMix64 over a state that is part of the vCPU, so that runs repeat.
pub fn rdrand(core: &mut Core, insn: &Insn) -> Done {
    let state = &mut core.vcpu.sys.prng;
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let v = z ^ z >> 31;
    core.set_reg(insn.opsize, insn.reg[0], v & insn.opsize.mask());
    core.vcpu.flags = LazyFlags::from_rflags(rflags::CF);
    Ok(())
}
