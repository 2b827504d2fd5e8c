//! Instructions that the interpreter executes for translated code, among others that are
//! translated: the outcome is the interpreter's, however the run is sliced.

mod harness;

use brolga_cpu::core::Interpreter;
use brolga_jit::{Jit, JitConfig};
use harness::{core, forever, run};

const COUNT: u64 = 3000;

/// Compares the engines on a program; the translator must have had the interpreter execute each of
/// `called`.
fn agree(program: &[u8], called: &[&str]) {
    let (vcpu, ram, _) = run(Interpreter::new(core(program)), COUNT, u64::MAX);
    for slice in [1, 2, 3, 5, 8, 13, 40, 200, 1000, COUNT] {
        let config = JitConfig { threshold: 1, stats: true, ..JitConfig::default() };
        let jit = Jit::new(config).expect("a host with a translator");
        let (other, other_ram, report) =
            run(Interpreter::with_tier(core(program), jit), COUNT, slice);
        assert!(vcpu == other, "slices of {slice}: {vcpu:#x?}\n{other:#x?}");
        assert!(ram == other_ram, "memory, slices of {slice}");
        let report = report.expect("counts");
        for name in called.iter().filter(|_| slice == COUNT) {
            assert!(report.contains(&format!(" called {name}\n")), "{name} in\n{report}");
        }
    }
}

/// What translated code says about itself after `program`.
fn report(program: &[u8]) -> String {
    let config = JitConfig { threshold: 1, stats: true, ..JitConfig::default() };
    let jit = Jit::new(config).expect("a host with a translator");
    run(Interpreter::with_tier(core(program), jit), COUNT, COUNT).2.expect("counts")
}

#[test]
fn flags_registers_and_time() {
    let program = [
        &[0x81, 0xc3, 0x67, 0x45, 0x23, 0x81][..], // add ebx, 0x81234567
        &[0x9c],                                   // pushf
        &[0x0f, 0x31],                             // rdtsc
        &[0x01, 0xc6],                             // add esi, eax
        &[0x11, 0xd7],                             // adc edi, edx
        &[0x41],                                   // inc ecx: keeps the carry
        &[0xfa],                                   // cli
        &[0xfb],                                   // sti
        &[0x83, 0xd5, 0x00],                       // adc ebp, 0
        &[0xe4, 0x60],                             // in al, 0x60
        &[0x01, 0xc3],                             // add ebx, eax
        &[0xe6, 0x61],                             // out 0x61, al
        &[0x58],                                   // pop eax
        &[0x31, 0xc6],                             // xor esi, eax
        &[0x50, 0x9d],                             // push eax; popf
        &[0x19, 0xed],                             // sbb ebp, ebp
        &[0x53, 0x51],                             // push ebx; push ecx
        &[0x31, 0xc0],                             // xor eax, eax
        &[0x0f, 0xa2],                             // cpuid
        &[0x01, 0xd6],                             // add esi, edx
        &[0x59, 0x5b],                             // pop ecx; pop ebx
    ];
    let called = ["Pushfd", "Popfd", "Rdtsc", "Cli", "Sti", "In_AL_imm8", "Out_imm8_AL", "Cpuid"];
    agree(&forever(program.concat()), &called);
}

#[test]
fn the_x87_among_integers() {
    let program = [
        &[0xdb, 0xe3][..],                     // fninit
        &[0xd9, 0xe8, 0xd9, 0xeb],             // fld1; fldpi
        &[0x43],                               // inc ebx
        &[0x89, 0x1d, 0x00, 0x50, 0x00, 0x00], // mov [0x5000], ebx
        &[0xda, 0x05, 0x00, 0x50, 0x00, 0x00], // fiadd dword [0x5000]
        &[0xde, 0xc9],                         // fmulp
        &[0xdd, 0x1d, 0x08, 0x50, 0x00, 0x00], // fstp qword [0x5008]
        &[0x03, 0x35, 0x0c, 0x50, 0x00, 0x00], // add esi, [0x500c]
    ];
    agree(&forever(program.concat()), &["Fninit"]);
}

#[test]
fn strings_in_both_directions() {
    let repeated = |prefix: u8, opcode: u8| {
        let mut code = vec![0xb9, 29, 0, 0, 0]; // mov ecx, 29
        code.extend([0xbe, 0xf8, 0x4f, 0, 0]); // mov esi, 0x4ff8
        code.extend([0xbf, 0x40, 0x5f, 0, 0]); // mov edi, 0x5f40
        code.extend([prefix, opcode]);
        // adc ebx, ecx; add ebx, esi; xor ebx, edi
        code.extend([0x11, 0xcb, 0x01, 0xf3, 0x31, 0xfb]);
        code
    };
    let mut program = Vec::new();
    for direction in [0xfc, 0xfd] {
        program.push(direction); // cld, std
        program.extend([0xbe, 0xfe, 0x4f, 0, 0]); // mov esi, 0x4ffe
        program.extend([0xbf, 0xfd, 0x5f, 0, 0]); // mov edi, 0x5ffd
        program.extend([0xac, 0x66, 0xad, 0xad]); // lodsb, lodsw, lodsd
        program.extend([0xaa, 0x66, 0xab, 0xab, 0xa4, 0xa5]); // stosb, w, d, movsb, movsd
        program.extend([0xa6, 0x19, 0xc3, 0xaf, 0x19, 0xc3]); // cmpsb, sbb, scasd, sbb
        for (prefix, opcode) in
            [(0xf3, 0xa4), (0xf3, 0xab), (0xf3, 0xa6), (0xf2, 0xa6), (0xf2, 0xae), (0xf3, 0xaf)]
        {
            program.extend(repeated(prefix, opcode));
        }
    }
    let called = ["Movsb_m8_m8", "Stosd_m32_EAX", "Cmpsb_m8_m8", "Scasb_AL_m8", "Std"];
    agree(&forever(program), &called);
}

/// Dividends of both signs, by register and memory, in all widths: no quotient overflows.
#[test]
fn divisions() {
    let program = [
        &[0x69, 0xdb, 0x0d, 0x66, 0x19, 0x00][..], // imul ebx, ebx, 1664525
        &[0x81, 0xc3, 0x5f, 0xf3, 0x6e, 0x3c],     // add ebx, 1013904223
        &[0x89, 0xd9, 0xc1, 0xf9, 0x0b, 0x83, 0xc9, 0x41], // mov ecx, ebx; sar ecx, 11; or ecx, 65
        &[0x89, 0xd8, 0x99, 0xf7, 0xf9],           // mov eax, ebx; cdq; idiv ecx
        &[0x01, 0xc6, 0x31, 0xd6],                 // add esi, eax; xor esi, edx
        &[0x89, 0xd8, 0x31, 0xd2, 0xf7, 0xf1],     // mov eax, ebx; xor edx, edx; div ecx
        &[0x11, 0xc6, 0x31, 0xd6],                 // adc esi, eax; xor esi, edx
        &[0x89, 0x0d, 0x00, 0x50, 0x00, 0x00],     // mov [0x5000], ecx
        &[0x66, 0xc1, 0x2d, 0x00, 0x50, 0x00, 0x00, 0x08], // shr word [0x5000], 8
        &[0x66, 0x83, 0x0d, 0x00, 0x50, 0x00, 0x00, 0x02], // or word [0x5000], 2
        &[0x66, 0x89, 0xd8, 0x66, 0x99],           // mov ax, bx; cwd
        &[0x66, 0xf7, 0x3d, 0x00, 0x50, 0x00, 0x00], // idiv word [0x5000]
        &[0x01, 0xc6, 0x31, 0xd6],                 // add esi, eax; xor esi, edx
        &[0x0f, 0xb6, 0xc3, 0xb1, 0x7b, 0xf6, 0xf1], // movzx eax, bl; mov cl, 123; div cl
        &[0x01, 0xc6],                             // add esi, eax
    ];
    agree(&forever(program.concat()), &[]);
}

#[test]
fn what_the_host_has_raised_is_not_the_guests() {
    let third = std::hint::black_box(1.0_f64) / std::hint::black_box(3.0);
    assert!(third > 0.3, "inexact");
    let program = forever([0x43, 0xdb, 0xe3].to_vec()); // inc ebx; fninit
    let config = JitConfig { threshold: 1, ..JitConfig::default() };
    let jit = Jit::new(config).expect("a host with a translator");
    let (vcpu, ..) = run(Interpreter::with_tier(core(&program), jit), COUNT, 100);
    assert_eq!(vcpu.mxcsr, 0x1f80);
}

/// A loop around an instruction of which the last four bytes lie in the next page, and around `code`
/// behind it.
fn crossing(code: &[u8]) -> Vec<u8> {
    const PAGE: usize = 0x1000;
    let mut program = vec![0x90; PAGE - 2];
    program[..5].copy_from_slice(&[0xe9, 0x2b, 0x10, 0, 0]); // jmp to the end
    program.extend([0x81, 0xc3, 0x67, 0x45, 0x23, 0x01]); // add ebx, 0x01234567
    program.extend(code);
    program.resize(PAGE + 0x30, 0x90);
    program.extend([0xe9, 0xc7, 0xff, 0xff, 0xff]); // jmp to the nops before the add
    program
}

#[test]
fn an_instruction_that_goes_on_in_the_next_page() {
    let left = "left for INVALID";
    let plain = crossing(&[0x41]); // inc ecx
    agree(&plain, &[]);
    assert!(!report(&plain).contains(left));
    let changing = crossing(&[0xfe, 0x05, 0x01, 0x20, 0, 0]); // inc byte [0x2001]
    agree(&changing, &[]);
    assert!(report(&changing).contains(left));
}
