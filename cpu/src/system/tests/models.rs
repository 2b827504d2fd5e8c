//! What each model lacks: opcodes are #UD, MSRs and bits of CR4 #GP.

use crate::cpuid::{CpuModel, Feature};
use crate::exception::vector;
use crate::system::testing::*;
use crate::vcpu::{cr4, gpr, rflags};

/// An instruction of each feature that has one, for 32-bit code: EDI points to memory.
const OPCODES: &[(Feature, &[u8])] = &[
    (Feature::Tsc, &[0x0f, 0x31]),
    (Feature::Msr, &[0x0f, 0x32]),
    (Feature::Cx8, &[0x0f, 0xc7, 0x0f]),
    (Feature::Mmx, &[0x0f, 0x77]),
    (Feature::Sep, &[0x0f, 0x34]),
    (Feature::Cmov, &[0x0f, 0x40, 0xc0]),
    (Feature::Cmov, &[0x0f, 0x1f, 0xc0]),
    (Feature::Cmov, &[0xf3, 0x0f, 0x1e, 0xfa]),
    (Feature::Fxsr, &[0x0f, 0xae, 0x07]),
    (Feature::Sse, &[0x0f, 0x57, 0xc0]),
    (Feature::Clflush, &[0x0f, 0xae, 0x3f]),
    (Feature::Sse2, &[0x66, 0x0f, 0xef, 0xc0]),
    (Feature::Sse3, &[0xf2, 0x0f, 0xd0, 0xc0]),
    (Feature::Ssse3, &[0x66, 0x0f, 0x38, 0x00, 0xc0]),
    (Feature::Sse41, &[0x66, 0x0f, 0x38, 0x10, 0xc0]),
    (Feature::Sse42, &[0xf2, 0x0f, 0x38, 0xf1, 0xc0]),
    (Feature::Popcnt, &[0xf3, 0x0f, 0xb8, 0xc0]),
    (Feature::Rdtscp, &[0x0f, 0x01, 0xf9]),
    (Feature::Aesni, &[0x66, 0x0f, 0x38, 0xdc, 0xc0]),
    (Feature::Pclmulqdq, &[0x66, 0x0f, 0x3a, 0x44, 0xc0, 0x00]),
    (Feature::Movbe, &[0x0f, 0x38, 0xf0, 0x07]),
    (Feature::Rdrand, &[0x0f, 0xc7, 0xf0]),
    (Feature::Invpcid, &[0x66, 0x0f, 0x38, 0x82, 0x07]),
    (Feature::Bmi1, &[0xc4, 0xe2, 0x78, 0xf2, 0xc0]),
    (Feature::Bmi2, &[0xc4, 0xe2, 0x78, 0xf5, 0xc0]),
    (Feature::Rdseed, &[0x0f, 0xc7, 0xf8]),
    (Feature::Adx, &[0x66, 0x0f, 0x38, 0xf6, 0xc0]),
    (Feature::Smap, &[0x0f, 0x01, 0xca]),
    (Feature::Clflushopt, &[0x66, 0x0f, 0xae, 0x3f]),
    (Feature::Clwb, &[0x66, 0x0f, 0xae, 0x37]),
    (Feature::Sha, &[0x0f, 0x38, 0xc8, 0xc0]),
    (Feature::Gfni, &[0x66, 0x0f, 0x38, 0xcf, 0xc0]),
    (Feature::Rdpid, &[0xf3, 0x0f, 0xc7, 0xf8]),
    (Feature::Serialize, &[0x0f, 0x01, 0xe8]),
    (Feature::ThreeDNow, &[0x0f, 0x0e]),
    (Feature::ThreeDNow, &[0x0f, 0x0f, 0xc1, 0x9e]),
    (Feature::ThreeDNowExt, &[0x0f, 0x0f, 0xc1, 0xbb]),
];

/// The same in 64-bit code: RDI points to memory.
const OPCODES_64: &[(Feature, &[u8])] = &[
    (Feature::LahfLm, &[0x9f]),
    (Feature::Syscall, &[0x0f, 0x05]),
    (Feature::Cx16, &[0x48, 0x0f, 0xc7, 0x0f]),
    (Feature::Fsgsbase, &[0xf3, 0x0f, 0xae, 0xc0]),
    (Feature::Bmi1, &[0xc4, 0xe2, 0xf8, 0xf2, 0xc0]),
];

fn models() -> impl Iterator<Item = CpuModel> {
    CpuModel::names().into_iter().map(|name| CpuModel::by_name(name).expect("its own name"))
}

/// JMP to itself.
const LOOP: &[u8] = &[0xeb, 0xfe];

/// Whether `code` is #UD, executed in the quick form it may have: with all of its block.
fn undefined(mut b: Bench, code: &[u8]) -> bool {
    b.core().vcpu.sys.cr4 |= cr4::OSFXSR | cr4::FSGSBASE;
    b.core().mode_changed();
    b.set(gpr::RDI, ENTRY & !15);
    b.run(&[code, LOOP].concat(), 2);
    !b.quiet() && b.fault().0 == vector::UD
}

#[test]
fn opcodes_that_a_model_lacks_are_undefined() {
    for model in models() {
        for (feature, code) in OPCODES {
            let b = Bench::with_cpu(model.clone()).enter_protected();
            let name = model.name();
            assert_eq!(undefined(b, code), !model.has(*feature), "{name}: {feature:?}");
        }
        for (feature, code) in OPCODES_64.iter().filter(|_| model.has(Feature::Lm)) {
            let b = Bench::with_cpu(model.clone()).enter_long();
            let name = model.name();
            assert_eq!(undefined(b, code), !model.has(*feature), "{name}: {feature:?}");
        }
    }
}

/// Registers, and the first of the models, as [`ORDER`] has them, that knows each.
const REGISTERS: &[(u32, &str)] = &[
    (0x0, "pentium"),
    (0x1, "pentium"),
    (0x10, "pentium"),
    (0x17, "pentium3"),
    (0x2a, "pentium3"),
    (0x8b, "pentium3"),
    (0xfe, "pentium3"),
    (0x174, "pentium3"),
    (0x179, "pentium3"),
    (0x1d9, "pentium3"),
    (0x200, "pentium3"),
    (0x250, "pentium3"),
    (0x277, "pentium3"),
    (0x2ff, "pentium3"),
    (0x400, "pentium3"),
    (0x1a0, "i686"),
    (0xc000_0080, "i686"),
    (0xc000_0081, "x86-64"),
    (0xc000_0082, "x86-64"),
    (0xc000_0084, "x86-64"),
    (0xc000_0100, "x86-64"),
    (0xc000_0102, "x86-64"),
    (0x3a, "core2"),
    (0xc000_0103, "nehalem"),
    (0x3b, "haswell"),
    (0x48, "max"),
    (0x10a, "max"),
    // Of AMD's.
    (0xc001_0015, ""),
];

/// The models, each with what those before it have.
const ORDER: [&str; 9] =
    ["486", "pentium", "pentium3", "i686", "x86-64", "core2", "nehalem", "haswell", "max"];

#[test]
fn registers_that_a_model_lacks_are_a_general_protection_fault() {
    assert_eq!(models().filter(|model| !model.is_amd()).count(), ORDER.len());
    for (place, name) in ORDER.into_iter().enumerate().skip(1) {
        for (msr, first) in REGISTERS {
            let known = ORDER.iter().position(|name| name == first);
            for code in [[0x0f, 0x32], [0x0f, 0x30]] {
                let mut b = Bench::with_model(name).enter_protected();
                b.set(gpr::RCX, (*msr).into());
                b.step(&code);
                let read = code[1] == 0x32;
                let known = known.is_some_and(|from| place >= from);
                if !known {
                    assert_eq!(b.fault(), (vector::GP, Some(0)), "{name}: {msr:#x}");
                } else if read {
                    assert!(b.quiet(), "{name}: {msr:#x}");
                }
            }
        }
    }
}

#[test]
fn bits_of_cr4_that_a_model_lacks_are_reserved() {
    let all = |model: &CpuModel| {
        let bits = [
            (Feature::Vme, cr4::VME | cr4::PVI),
            (Feature::Tsc, cr4::TSD),
            (Feature::De, cr4::DE),
            (Feature::Pse, cr4::PSE),
            (Feature::Pae, cr4::PAE),
            (Feature::Mce, cr4::MCE),
            (Feature::Pge, cr4::PGE),
            (Feature::Mmx, cr4::PCE),
            (Feature::Fxsr, cr4::OSFXSR),
            (Feature::Sse, cr4::OSXMMEXCPT),
            (Feature::Smep, cr4::SMEP),
            (Feature::Smap, cr4::SMAP),
            (Feature::Umip, cr4::UMIP),
        ];
        bits.into_iter().filter(|(f, _)| model.has(*f)).fold(0, |all, (_, bit)| all | bit)
    };
    let tested = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 19, 20, 21, 23, 24, 31];
    for model in models() {
        for bit in tested {
            let mut b = Bench::with_cpu(model.clone()).enter_protected();
            b.set(gpr::RAX, 1 << bit);
            b.step(&[0x0f, 0x22, 0xe0]);
            let name = model.name();
            match all(&model) {
                0 => assert_eq!(b.fault().0, vector::UD, "{name} has no CR4"),
                bits if bits >> bit & 1 != 0 => assert!(b.quiet(), "{name}: bit {bit}"),
                _ => assert_eq!(b.fault(), (vector::GP, Some(0)), "{name}: bit {bit}"),
            }
        }
    }
}

#[test]
fn a_model_without_x2apic_mode_cannot_enter_it() {
    let mut b = Bench::with_model("core2").enter_protected();
    b.set(gpr::RCX, 0x1b);
    b.set(gpr::RAX, 0xfee0_0d00);
    b.step(&[0x0f, 0x30]);
    assert_eq!(b.fault(), (vector::GP, Some(0)));
}

/// ANDN EAX, EAX, EAX; and RORX EAX, EAX, 3.
const VEX: [&[u8]; 2] = [&[0xc4, 0xe2, 0x78, 0xf2, 0xc0], &[0xc4, 0xe3, 0x7b, 0xf0, 0xc0, 0x03]];

#[test]
fn vex_exists_in_protected_mode_only() {
    for code in VEX {
        assert!(undefined(Bench::real(), code), "real-address mode");
        assert!(!undefined(Bench::protected(), code), "protected mode");
        assert!(!undefined(Bench::long(), code), "64-bit mode");
        let mut virtual_8086 = Bench::protected();
        virtual_8086.core().vcpu.eflags |= rflags::VM | 3 << 12;
        virtual_8086.core().vcpu.cpl = 3;
        assert!(undefined(virtual_8086, code), "virtual-8086 mode");
    }
}

#[test]
fn vex_with_a_length_or_another_prefix_is_undefined() {
    let lengths: [&[u8]; 2] =
        [&[0xc4, 0xe2, 0x7c, 0xf2, 0xc0], &[0xc4, 0xe3, 0x7f, 0xf0, 0xc0, 0x03]];
    for code in lengths {
        assert!(undefined(Bench::long(), code), "{code:02x?}");
    }
    for code in VEX {
        for prefix in [0x66, 0xf2, 0xf3, 0xf0, 0x48] {
            let code = [&[prefix], code].concat();
            assert!(undefined(Bench::long(), &code), "{code:02x?}");
        }
    }
}

/// i486 Programmer's Reference Manual, 10.2 and 10.3.
#[test]
fn test_registers_are_the_486s() {
    let write = |n: u8| [0x0f, 0x26, 0xc0 | n << 3];
    let read = |n: u8| [0x0f, 0x24, 0xc3 | n << 3];
    for model in models() {
        let exists = model.name() == "486";
        for n in 0..8 {
            let b = Bench::with_model(model.name()).enter_protected();
            assert_eq!(undefined(b, &read(n)), !exists || n < 3, "{}: TR{n}", model.name());
        }
    }
    let mut b = Bench::with_model("486").enter_protected();
    for n in 3..8 {
        b.set(gpr::RAX, 0x1234_5000 | u64::from(n) << 9 | 0x10);
        b.step(&write(n));
        b.step(&read(n));
        assert_eq!(b.reg(gpr::RBX), 0x1234_5000 | u64::from(n) << 9 | 0x10, "TR{n}");
    }
    const LOOK_UP: u64 = 1;
    b.set(gpr::RAX, 0x1234_5000 | LOOK_UP);
    b.step(&write(6));
    b.step(&read(7));
    assert_eq!(b.reg(gpr::RBX) & 0x10, 0, "a look-up misses");
    let mut user = Bench::with_model("486").enter_protected().user();
    user.step(&read(6));
    assert_eq!(user.fault(), (vector::GP, Some(0)));
}

/// Encodings that decoders know whatever the mode or the processor.
#[test]
fn modes_decide_on_what_decodes_everywhere() {
    let everywhere: [(&str, &[u8]); 4] = [
        ("MOV EAX, TR6", &[0x0f, 0x24, 0xf0]),
        ("MOV TR6, EAX", &[0x0f, 0x26, 0xf0]),
        ("LOCK MOV EAX, CR0, which is CR8 on AMD processors", &[0xf0, 0x0f, 0x20, 0xc0]),
        ("RSM outside SMM", &[0x0f, 0xaa]),
    ];
    for (what, code) in everywhere {
        for b in [Bench::real(), Bench::protected(), Bench::long()] {
            assert!(undefined(b, code), "{what}");
        }
    }
    let long_only: [(&str, &[u8]); 4] = [
        ("SYSCALL", &[0x0f, 0x05]),
        ("SYSRET", &[0x0f, 0x07]),
        ("SWAPGS", &[0x0f, 0x01, 0xf8]),
        ("RDFSBASE", &[0xf3, 0x0f, 0xae, 0xc0]),
    ];
    for (what, code) in long_only {
        assert!(undefined(Bench::real(), code), "{what} in real-address mode");
        assert!(undefined(Bench::protected(), code), "{what} in protected mode");
        assert!(!undefined(Bench::long(), code), "{what} in 64-bit mode");
    }
    let short_only: [(&str, &[u8]); 6] = [
        ("AAA", &[0x37]),
        ("PUSHA", &[0x60]),
        ("PUSH ES", &[0x06]),
        ("INTO", &[0xce]),
        ("LDS", &[0xc5, 0x07]),
        ("CALL FAR", &[0x9a, 0, 0, 0, 0, 8, 0]),
    ];
    for (what, code) in short_only {
        assert!(!undefined(Bench::protected(), code), "{what} in protected mode");
        assert!(undefined(Bench::long(), code), "{what} in 64-bit mode");
    }
}

/// RDSSPQ and ENDBR64, PREFETCHW, PREFETCHWT1, CLDEMOTE, PREFETCHIT0, and reserved NOPs.
#[test]
fn hints_that_no_model_knows_do_nothing() {
    let hints: [&[u8]; 9] = [
        &[0xf3, 0x48, 0x0f, 0x1e, 0xc8],
        &[0xf3, 0x0f, 0x1e, 0xfa],
        &[0x0f, 0x0d, 0x08],
        &[0x0f, 0x0d, 0x10],
        &[0x0f, 0x1c, 0x00],
        &[0x0f, 0x18, 0x38],
        &[0x0f, 0x19, 0xc0],
        &[0x0f, 0x1a, 0x07],
        &[0x66, 0x0f, 0x1b, 0xc0],
    ];
    for code in hints {
        let mut b = Bench::long();
        // Where nothing is mapped.
        b.set(gpr::RAX, 0x1234_5678_9abc);
        b.step(code);
        assert!(b.quiet(), "{code:02x?}");
        assert_eq!(b.reg(gpr::RAX), 0x1234_5678_9abc, "{code:02x?}");
    }
}
