//! Comparison of strings, by the host's instructions.

use brolga_cpu::backend::{Backend, Bin};
use brolga_cpu::vcpu::rflags::{CF, OF, SF, ZF};
use brolga_mmu::Width;
use cranelift_codegen::ir::{InstBuilder, types};

use super::Vector;
use crate::operations::Operation;
use crate::translate::node::{Kind, Node};
use crate::translate::{Translator, at, offset, trusted};

impl Translator<'_> {
    /// Does the comparison; the result is left to be fetched, the flags are here.
    pub(super) fn compare_strings(
        &mut self,
        mask: bool,
        control: u8,
        a: Vector,
        b: Vector,
        lens: Option<[Node; 2]>,
    ) -> Node {
        let (a, b) = (self.lanes(types::I8X16, a), self.lanes(types::I8X16, b));
        let [len_a, len_b] = match lens {
            Some(lens) => lens.map(|len| self.wide(len)),
            None => [self.f.ins().iconst(types::I64, 0); 2],
        };
        let operation = Operation::CompareStrings { explicit: lens.is_some(), mask, control };
        let function = self.operation(operation);
        let arguments = [self.core, len_a, len_b, a, b];
        self.f.ins().call_indirect(self.signatures.to_integer, function, &arguments);
        self.flags_of_result()
    }

    /// The status flags in their positions, of what LAHF and SETO have put into the core.
    fn flags_of_result(&mut self) -> Node {
        let ax = self.f.ins().uload16(types::I64, trusted(), self.core, at(offset::RESULT_FLAGS));
        let ax = self.given(Width::W16, ax);
        let (eight, mask) = (self.constant(8), self.constant(CF | ZF | SF));
        let ah = self.node(Width::W16, Kind::Bin(Bin::Shr, ax, eight));
        let low = self.bin(Bin::And, Width::W64, ah, mask);
        let (up, of) = (self.constant(OF.trailing_zeros().into()), self.constant(OF));
        let high = self.node(Width::W64, Kind::Bin(Bin::Shl, ax, up));
        let high = self.bin(Bin::And, Width::W64, high, of);
        self.bin(Bin::Or, Width::W64, low, high)
    }
}
