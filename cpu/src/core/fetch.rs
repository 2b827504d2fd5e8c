//! Fetching code that a block is to be made of.

use brolga_mmu::{AccessKind, GuestPhys, Linear, PAGE_SIZE, Width};

use super::{By, Core, Exit, Mode};
use crate::block::{Block, Crossing};
use crate::decode::{Decoded, MAX_INSN_BYTES, decode};
use crate::exception::Exception;
use crate::vcpu::SegReg;

impl Core {
    /// Where an instruction at `ip` lies if it crosses into the next page, and the TLB has that.
    pub(super) fn crossing(&self, ip: u64, phys: GuestPhys) -> Option<Crossing> {
        let next = self.code_address(ip.wrapping_add(PAGE_SIZE - phys.page_offset()));
        let second = self.mem.tlb.fetched_from(next)?;
        Some(Crossing { first: phys, second, mode: self.mode })
    }

    /// Decodes `code`, which lies at `phys`, up to the first armed breakpoint behind its beginning.
    pub(super) fn decode_up_to_breakpoint(
        &self,
        code: &[u8],
        mode: Mode,
        phys: GuestPhys,
    ) -> Decoded<Core> {
        let decoded = decode::<Core>(code, mode, &self.model, usize::MAX);
        let Decoded::Block(block) = &decoded else { return decoded };
        if self.stops.armed_in(phys.page_number()).is_empty() {
            return decoded;
        }
        let ops = block.ops.iter().skip(1);
        let before = ops
            .take_while(|op| !self.stops.is_armed(GuestPhys(phys.0 + u64::from(op.insn.at))))
            .count();
        if before + 1 == block.ops.len() {
            return decoded;
        }
        decode::<Core>(code, mode, &self.model, before + 1)
    }

    /// The physical address of the instruction at `ip`, with the checks of a fetch.
    pub(super) fn fetch_address(&mut self, ip: u64, at: Linear) -> Result<GuestPhys, Exit> {
        if !self.inside_limit(ip, 1) {
            return Err(self.raise(Exception::gp("fetch beyond the limit of CS")));
        }
        if self.mode.has(Mode::CODE64) && !self.is_canonical(at.0) {
            return Err(self.raise(Exception::gp("fetch from an address that is not canonical")));
        }
        match self.mem.tlb.fetched_from(at) {
            Some(phys) => Ok(phys),
            None => self.translate(at, AccessKind::Execute, By::Current),
        }
    }

    /// Fetches and decodes the one instruction at `ip`: it crosses a page or the segment's end, or
    /// does not lie in memory.
    pub(super) fn fetch_one(&mut self, ip: u64) -> Result<Block<Core>, Exit> {
        let mut code = [0; MAX_INSN_BYTES];
        let mut len = 0;
        while len < MAX_INSN_BYTES {
            let next = ip + len as u64;
            let linear = self.code_address(next);
            let phys = self.fetch_address(next, linear)?;
            let mut run = (PAGE_SIZE - phys.page_offset()).min((MAX_INSN_BYTES - len) as u64);
            if !self.mode.has(Mode::CS_FLAT) {
                run = run.min(u64::from(self.vcpu.seg(SegReg::Cs).limit) - next + 1);
            }
            for n in 0..run {
                code[len] = self.read_phys(GuestPhys(phys.0 + n), Width::W8) as u8;
                len += 1;
            }
            if let Decoded::Block(block) = decode(&code[..len], self.mode, &self.model, 1) {
                return Ok(block);
            }
        }
        Err(self.raise(Exception::gp("instruction longer than 15 bytes")))
    }
}
