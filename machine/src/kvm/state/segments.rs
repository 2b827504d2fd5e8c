//! Segment, table and control registers.

use brolga_cpu::vcpu::{SegReg, Segment, TableReg, Vcpu, attr, cr0, cr4, efer};
use kvm_bindings as kvm;

use super::{in_order, privilege};

pub(super) fn to_kvm(state: &Vcpu, apic_base: u64, cr8: u64) -> kvm::kvm_sregs2 {
    let sys = &state.sys;
    let mut sregs = kvm::kvm_sregs2 {
        tr: segment(&state.tr),
        ldt: segment(&state.ldtr),
        gdt: table(state.gdtr),
        idt: table(state.idtr),
        cr0: sys.cr0,
        cr2: sys.cr2,
        cr3: sys.cr3,
        cr4: sys.cr4,
        cr8,
        efer: sys.efer,
        apic_base,
        ..Default::default()
    };
    for (register, place) in in_order(&mut sregs) {
        *place = segment(state.seg(register));
    }
    // KVM's privilege level is that of SS, which a null selector has too.
    sregs.ss.dpl = state.cpl;
    if pae(state) {
        sregs.flags = kvm::KVM_SREGS2_FLAGS_PDPTRS_VALID.into();
        sregs.pdptrs = sys.pdptes;
    }
    sregs
}

pub(super) fn from_kvm(state: &mut Vcpu, from: &kvm::kvm_sregs2) {
    let mut sregs = *from;
    let ss_dpl = sregs.ss.dpl;
    for (register, place) in in_order(&mut sregs) {
        take(&mut state.segs[register as usize], place);
    }
    take(&mut state.tr, &sregs.tr);
    take(&mut state.ldtr, &sregs.ldt);
    state.gdtr = TableReg { base: sregs.gdt.base, limit: sregs.gdt.limit };
    state.idtr = TableReg { base: sregs.idt.base, limit: sregs.idt.limit };
    let sys = &mut state.sys;
    sys.cr0 = sregs.cr0;
    sys.cr2 = sregs.cr2;
    sys.cr3 = sregs.cr3;
    sys.cr4 = sregs.cr4;
    sys.efer = sregs.efer;
    if sregs.flags & u64::from(kvm::KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0 {
        sys.pdptes = sregs.pdptrs;
    }
    state.cpl = privilege(state, ss_dpl);
    let long = state.sys.efer & efer::LMA != 0;
    // In real and virtual-8086 mode, DPL and privilege level are unrelated.
    let ss = &mut state.segs[SegReg::Ss as usize];
    if long && ss.selector & !3 == 0 {
        // KVM's emulator loads a data segment when it loads null, which is for 64-bit code only.
        ss.limit = 0;
        ss.attr |= attr::UNUSABLE;
    }
    if ss.has(attr::UNUSABLE) {
        ss.attr = attr::UNUSABLE | u32::from(ss_dpl) << 5;
    }
}

/// Whether the page-directory-pointer registers are in use (SDM vol. 3, 4.4.1).
fn pae(state: &Vcpu) -> bool {
    let sys = &state.sys;
    sys.cr0 & cr0::PG != 0 && sys.cr4 & cr4::PAE != 0 && sys.efer & efer::LMA == 0
}

fn table(table: TableReg) -> kvm::kvm_dtable {
    kvm::kvm_dtable { base: table.base, limit: table.limit, padding: [0; 3] }
}

fn segment(segment: &Segment) -> kvm::kvm_segment {
    let bit = |mask| u8::from(segment.has(mask));
    kvm::kvm_segment {
        base: segment.base,
        limit: segment.limit,
        selector: segment.selector,
        type_: segment.kind(),
        present: bit(attr::P),
        dpl: segment.dpl(),
        db: bit(attr::DB),
        s: bit(attr::S),
        l: bit(attr::L),
        g: bit(attr::G),
        avl: bit(AVL),
        unusable: bit(attr::UNUSABLE),
        padding: 0,
    }
}

/// Free for software.
const AVL: u32 = 1 << 12;

fn take(segment: &mut Segment, from: &kvm::kvm_segment) {
    let bit = |on: u8, mask| if on != 0 { mask } else { 0 };
    let attributes = u32::from(from.type_ & 15)
        | bit(from.s, attr::S)
        | u32::from(from.dpl & 3) << 5
        | bit(from.present, attr::P)
        | bit(from.avl, AVL)
        | bit(from.l, attr::L)
        | bit(from.db, attr::DB)
        | bit(from.g, attr::G);
    // Of a segment that cannot be used, processors keep more or less: only base and selector are
    // seen by software, and DPL where it is SS's.
    let unusable = from.unusable != 0 || from.present == 0;
    let attr = if unusable { attr::UNUSABLE | attributes & (3 << 5) } else { attributes };
    let limit = if unusable { 0 } else { from.limit };
    *segment = Segment { selector: from.selector, attr, limit, base: from.base };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_stack_segment_of_64_bit_code_is_unusable() {
        let data = kvm::kvm_segment {
            type_: 3,
            present: 1,
            s: 1,
            dpl: 2,
            db: 1,
            g: 1,
            ..Default::default()
        };
        let loaded = kvm::kvm_segment { selector: 2, limit: 0xfff, ..data };
        let long = kvm::kvm_sregs2 {
            cr0: cr0::PE | cr0::PG,
            efer: efer::LMA,
            ss: loaded,
            ..Default::default()
        };
        let mut state = Vcpu::new(0);
        from_kvm(&mut state, &long);
        let ss = state.seg(SegReg::Ss);
        assert_eq!((ss.selector, ss.limit, ss.attr), (2, 0, attr::UNUSABLE | 2 << 5));
        assert_eq!(state.cpl, 2);
        from_kvm(&mut state, &kvm::kvm_sregs2 { efer: 0, ..long });
        assert!(!state.seg(SegReg::Ss).has(attr::UNUSABLE), "KVM knows what the guest has loaded");
    }
}
