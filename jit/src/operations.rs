//! Instructions of the host that Cranelift cannot express, as functions for translated code. One
//! of the crate's modules with `unsafe` (naked functions).
//!
//! They are called with Cranelift's `preserve_all` convention: the core in RDI, vectors in XMM0
//! and XMM1, integers in RSI and RDX. No register changes; the result goes to the core. They run
//! under the guest's MXCSR, as all translated code does.

use std::arch::naked_asm;
use std::mem::offset_of;

use brolga_cpu::core::translated::offset;
use brolga_cpu::vector::{ComFmt, Crypto, Fma, Fmt, IntCvt, Lane, Shift};
use brolga_mmu::Width;

/// A function with a convention of its own, known by its address.
type Function = extern "C" fn();

/// `$insn` computes XMM0 from XMM0 and XMM1.
macro_rules! vectors {
    ($($name:ident $insn:literal;)+) => {
        $(
            #[unsafe(naked)]
            extern "C" fn $name() {
                naked_asm!(
                    "sub rsp, 24",
                    "movups [rsp], xmm0",
                    $insn,
                    "movups [rdi + {result}], xmm0",
                    "movups xmm0, [rsp]",
                    "add rsp, 24",
                    "ret",
                    result = const offset::RESULT,
                )
            }
        )+
    };
}

vectors! {
    cvtps2dq "cvtps2dq xmm0, xmm1";
    cvtpd2dq "cvtpd2dq xmm0, xmm1";
    addsubps "addsubps xmm0, xmm1";
    addsubpd "addsubpd xmm0, xmm1";
    rcpss "rcpss xmm0, xmm1";
    rcpps "rcpps xmm0, xmm1";
    rsqrtss "rsqrtss xmm0, xmm1";
    rsqrtps "rsqrtps xmm0, xmm1";
    aesenc "aesenc xmm0, xmm1";
    aesenclast "aesenclast xmm0, xmm1";
    aesdec "aesdec xmm0, xmm1";
    aesdeclast "aesdeclast xmm0, xmm1";
    aesimc "aesimc xmm0, xmm1";
    aeskeygenassist "aeskeygenassist xmm0, xmm1, 0";
    pclmulqdq "pclmulqdq xmm0, xmm1, 0";
    sha1nexte "sha1nexte xmm0, xmm1";
    sha1msg1 "sha1msg1 xmm0, xmm1";
    sha1msg2 "sha1msg2 xmm0, xmm1";
    sha256msg1 "sha256msg1 xmm0, xmm1";
    sha256msg2 "sha256msg2 xmm0, xmm1";
    sha1rnds4_0 "sha1rnds4 xmm0, xmm1, 0";
    sha1rnds4_1 "sha1rnds4 xmm0, xmm1, 1";
    sha1rnds4_2 "sha1rnds4 xmm0, xmm1, 2";
    sha1rnds4_3 "sha1rnds4 xmm0, xmm1, 3";
    gf2p8mulb "gf2p8mulb xmm0, xmm1";
    gf2p8affineqb "gf2p8affineqb xmm0, xmm1, 0";
    gf2p8affineinvqb "gf2p8affineinvqb xmm0, xmm1, 0";
    vpsllvd "vpsllvd xmm0, xmm0, xmm1";
    vpsllvq "vpsllvq xmm0, xmm0, xmm1";
    vpsrlvd "vpsrlvd xmm0, xmm0, xmm1";
    vpsrlvq "vpsrlvq xmm0, xmm0, xmm1";
    vpsravd "vpsravd xmm0, xmm0, xmm1";
    vcvtph2ps "vcvtph2ps xmm0, xmm1";
}

/// `$insn` computes XMM2 from XMM0, XMM1 and XMM2.
macro_rules! fused {
    ($($name:ident)+) => {
        $(
            #[unsafe(naked)]
            extern "C" fn $name() {
                naked_asm!(
                    "sub rsp, 24",
                    "movups [rsp], xmm2",
                    concat!(stringify!($name), " xmm2, xmm0, xmm1"),
                    "movups [rdi + {result}], xmm2",
                    "movups xmm2, [rsp]",
                    "add rsp, 24",
                    "ret",
                    result = const offset::RESULT,
                )
            }
        )+
    };
}

fused! {
    vfmadd231ss vfmadd231sd vfmadd231ps vfmadd231pd
    vfmsub231ss vfmsub231sd vfmsub231ps vfmsub231pd
    vfnmadd231ss vfnmadd231sd vfnmadd231ps vfnmadd231pd
    vfnmsub231ss vfnmsub231sd vfnmsub231ps vfnmsub231pd
    vfmaddsub231ps vfmaddsub231pd vfmsubadd231ps vfmsubadd231pd
}

/// `$insn` computes RSI from RSI, RDX and XMM1.
macro_rules! integers {
    ($($name:ident $insn:literal;)+) => {
        $(
            #[unsafe(naked)]
            extern "C" fn $name() {
                naked_asm!(
                    "push rsi",
                    $insn,
                    "mov [rdi + {result}], rsi",
                    "pop rsi",
                    "ret",
                    result = const offset::RESULT,
                )
            }
        )+
    };
}

integers! {
    cvtss2si32 "cvtss2si esi, xmm1";
    cvtss2si64 "cvtss2si rsi, xmm1";
    cvtsd2si32 "cvtsd2si esi, xmm1";
    cvtsd2si64 "cvtsd2si rsi, xmm1";
    crc32_8 "crc32 esi, dl";
    crc32_16 "crc32 esi, dx";
    crc32_32 "crc32 esi, edx";
    crc32_64 "crc32 rsi, rdx";
    pdep64 "pdep rsi, rsi, rdx";
    pext64 "pext rsi, rsi, rdx";
}

/// Two rounds of SHA-256, of XMM0 and XMM1 with the keys in XMM2; the instruction wants them in XMM0.
#[unsafe(naked)]
extern "C" fn sha256rnds2() {
    naked_asm!(
        "sub rsp, 40",
        "movups [rsp], xmm0",
        "movups [rsp + 16], xmm2",
        "movups xmm0, [rsp + 16]",
        "movups xmm2, [rsp]",
        "sha256rnds2 xmm2, xmm1",
        "movups [rdi + {result}], xmm2",
        "movups xmm0, [rsp]",
        "movups xmm2, [rsp + 16]",
        "add rsp, 40",
        "ret",
        result = const offset::RESULT,
    )
}

/// ROUND and VCVTPS2PH with an immediate.
macro_rules! rounding {
    ($($name:ident $insn:literal;)+) => {
        $(
            #[unsafe(naked)]
            extern "C" fn $name<const HOW: u8>() {
                naked_asm!(
                    "sub rsp, 24",
                    "movups [rsp], xmm0",
                    concat!($insn, " xmm0, xmm1, {how}"),
                    "movups [rdi + {result}], xmm0",
                    "movups xmm0, [rsp]",
                    "add rsp, 24",
                    "ret",
                    how = const HOW,
                    result = const offset::RESULT,
                )
            }
        )+
    };
}

rounding! {
    roundss "roundss";
    roundsd "roundsd";
    roundps "roundps";
    roundpd "roundpd";
    vcvtps2ph "vcvtps2ph";
}

/// The opcodes of the comparisons of strings, behind 66 0F 3A.
mod opcode {
    pub(super) const PCMPESTRM: u8 = 0x60;
    pub(super) const PCMPESTRI: u8 = 0x61;
    pub(super) const PCMPISTRM: u8 = 0x62;
    pub(super) const PCMPISTRI: u8 = 0x63;
}

/// Compares the strings in XMM0 and XMM1, of RSI and RDX elements if `OPCODE` asks for lengths: an
/// index. REX.W makes the lengths 64 bits wide.
#[unsafe(naked)]
extern "C" fn string_index<const OPCODE: u8, const CONTROL: u8>() {
    naked_asm!(
        "push rax",
        "push rcx",
        "mov rax, rsi",
        ".byte 0x66, 0x48, 0x0f, 0x3a, {opcode}, 0xc1, {control}",
        "lahf",
        "seto al",
        "mov [rdi + {result}], rcx",
        "mov [rdi + {flags}], ax",
        "pop rcx",
        "pop rax",
        "ret",
        opcode = const OPCODE,
        control = const CONTROL,
        result = const offset::RESULT,
        flags = const offset::RESULT_FLAGS,
    )
}

/// As [`string_index`], for a mask.
#[unsafe(naked)]
extern "C" fn string_mask<const OPCODE: u8, const CONTROL: u8>() {
    naked_asm!(
        "push rax",
        "sub rsp, 16",
        "movups [rsp], xmm0",
        "mov rax, rsi",
        ".byte 0x66, 0x48, 0x0f, 0x3a, {opcode}, 0xc1, {control}",
        "lahf",
        "seto al",
        "movups [rdi + {result}], xmm0",
        "mov [rdi + {flags}], ax",
        "movups xmm0, [rsp]",
        "add rsp, 16",
        "pop rax",
        "ret",
        opcode = const OPCODE,
        control = const CONTROL,
        result = const offset::RESULT,
        flags = const offset::RESULT_FLAGS,
    )
}

/// A comparison for each immediate of seven bits: the rows from a sixteenth of the immediate on.
macro_rules! all_controls {
    ($name:ident $opcode:ident: $($row:literal)+) => {
        [$([
            $name::<{ opcode::$opcode }, { 16 * $row }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 1 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 2 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 3 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 4 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 5 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 6 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 7 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 8 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 9 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 10 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 11 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 12 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 13 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 14 }>,
            $name::<{ opcode::$opcode }, { 16 * $row + 15 }>,
        ]),+]
    };
}

/// A rounding for each immediate of four bits.
macro_rules! all_modes {
    ($name:ident) => {
        [
            $name::<0>,
            $name::<1>,
            $name::<2>,
            $name::<3>,
            $name::<4>,
            $name::<5>,
            $name::<6>,
            $name::<7>,
            $name::<8>,
            $name::<9>,
            $name::<10>,
            $name::<11>,
            $name::<12>,
            $name::<13>,
            $name::<14>,
            $name::<15>,
        ]
    };
}

/// What a function does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Ps2Dq,
    Pd2Dq,
    /// Subtracts the even lanes and adds the odd ones, of a packed format.
    AddSub(Fmt),
    /// Of singles.
    Rcp(Fmt),
    Rsqrt(Fmt),
    /// The conversion as MXCSR rounds; only `from` and `wide` count.
    ToInt(IntCvt),
    Crc32c(Width),
    /// Shifts each lane by its own count: doublewords and quadwords.
    ShiftEach(Shift, Lane),
    /// The four low half-precision numbers to singles.
    Ph2Ps,
    /// The reverse; the lower three bits of the immediate count.
    Ps2Ph(u8),
    /// On three vectors. Those that alternate exist for packed formats.
    Fma(Fma, Fmt),
    /// The lower four bits of the immediate count.
    Round(Fmt, u8),
    CompareStrings {
        /// With lengths.
        explicit: bool,
        /// The result is a mask, not an index.
        mask: bool,
        /// The lower seven bits count.
        control: u8,
    },
    Crypto(Crypto),
    Sha256Rounds,
    /// Of 64 bits.
    Deposit,
    Extract,
}

const PLAIN: [Function; 16] = [
    cvtps2dq, cvtpd2dq, addsubps, addsubpd, rcpss, rcpps, rsqrtss, rsqrtps, cvtss2si32, cvtss2si64,
    cvtsd2si32, cvtsd2si64, crc32_8, crc32_16, crc32_32, crc32_64,
];

const EXTENSIONS: [Function; 22] = [
    aesenc,
    aesenclast,
    aesdec,
    aesdeclast,
    aesimc,
    aeskeygenassist,
    pclmulqdq,
    sha1nexte,
    sha1msg1,
    sha1msg2,
    sha256msg1,
    sha256msg2,
    sha1rnds4_0,
    sha1rnds4_1,
    sha1rnds4_2,
    sha1rnds4_3,
    gf2p8mulb,
    gf2p8affineqb,
    gf2p8affineinvqb,
    sha256rnds2,
    pdep64,
    pext64,
];

/// The functions, in the order of [`Operation::index`].
#[repr(C)]
struct Table {
    plain: [Function; 16],
    rounding: [[Function; 16]; 4],
    strings: [[[Function; 16]; 8]; 4],
    extensions: [Function; 22],
    shifts: [[Function; 2]; 3],
    from_half: Function,
    to_half: [Function; 8],
    /// By operation and format.
    fused: [[Function; 4]; 6],
}

static TABLE: Table = Table {
    plain: PLAIN,
    rounding: [all_modes!(roundss), all_modes!(roundsd), all_modes!(roundps), all_modes!(roundpd)],
    strings: [
        all_controls!(string_index PCMPISTRI: 0 1 2 3 4 5 6 7),
        all_controls!(string_mask PCMPISTRM: 0 1 2 3 4 5 6 7),
        all_controls!(string_index PCMPESTRI: 0 1 2 3 4 5 6 7),
        all_controls!(string_mask PCMPESTRM: 0 1 2 3 4 5 6 7),
    ],
    extensions: EXTENSIONS,
    // No instruction shifts quadwords arithmetically.
    shifts: [[vpsllvd, vpsllvq], [vpsrlvd, vpsrlvq], [vpsravd, vpsravd]],
    from_half: vcvtph2ps,
    to_half: [
        vcvtps2ph::<0>,
        vcvtps2ph::<1>,
        vcvtps2ph::<2>,
        vcvtps2ph::<3>,
        vcvtps2ph::<4>,
        vcvtps2ph::<5>,
        vcvtps2ph::<6>,
        vcvtps2ph::<7>,
    ],
    fused: [
        [vfmadd231ss, vfmadd231sd, vfmadd231ps, vfmadd231pd],
        [vfmsub231ss, vfmsub231sd, vfmsub231ps, vfmsub231pd],
        [vfnmadd231ss, vfnmadd231sd, vfnmadd231ps, vfnmadd231pd],
        [vfnmsub231ss, vfnmsub231sd, vfnmsub231ps, vfnmsub231pd],
        // No scalar instruction alternates.
        [vfmaddsub231ps, vfmaddsub231pd, vfmaddsub231ps, vfmaddsub231pd],
        [vfmsubadd231ps, vfmsubadd231pd, vfmsubadd231ps, vfmsubadd231pd],
    ],
};

/// The address of the functions' table.
pub(crate) fn table_address() -> u64 {
    (&raw const TABLE).addr() as u64
}

/// The number of the function at an offset in the table.
const fn place(offset: usize) -> usize {
    offset / size_of::<Function>()
}

impl Operation {
    /// The function's place in the table.
    pub(crate) fn index(self) -> usize {
        match self {
            Operation::Ps2Dq => 0,
            Operation::Pd2Dq => 1,
            Operation::AddSub(fmt) => 2 + usize::from(fmt == Fmt::Pd),
            Operation::Rcp(fmt) => 4 + usize::from(fmt == Fmt::Ps),
            Operation::Rsqrt(fmt) => 6 + usize::from(fmt == Fmt::Ps),
            Operation::ToInt(op) => {
                8 + 2 * usize::from(op.from == ComFmt::Sd) + usize::from(op.wide)
            }
            Operation::Crc32c(w) => 12 + w as usize,
            Operation::Round(fmt, how) => {
                let row = match fmt {
                    Fmt::Ss => 1,
                    Fmt::Sd => 2,
                    Fmt::Ps => 3,
                    Fmt::Pd => 4,
                };
                16 * row + usize::from(how & 15)
            }
            Operation::ShiftEach(op, lane) => {
                place(offset_of!(Table, shifts)) + 2 * op as usize + usize::from(lane == Lane::Q)
            }
            Operation::Ph2Ps => place(offset_of!(Table, from_half)),
            Operation::Ps2Ph(how) => place(offset_of!(Table, to_half)) + usize::from(how & 7),
            Operation::Fma(op, fmt) => {
                place(offset_of!(Table, fused)) + 4 * op as usize + fmt as usize
            }
            Operation::CompareStrings { explicit, mask, control } => {
                let kind = 2 * usize::from(explicit) + usize::from(mask);
                place(offset_of!(Table, strings)) + 128 * kind + usize::from(control & 127)
            }
            Operation::Crypto(op) => EXTENSIONS_FROM + crypto_index(op),
            Operation::Sha256Rounds => EXTENSIONS_FROM + 19,
            Operation::Deposit => EXTENSIONS_FROM + 20,
            Operation::Extract => EXTENSIONS_FROM + 21,
        }
    }
}

const EXTENSIONS_FROM: usize = offset_of!(Table, extensions) / size_of::<Function>();

/// The place in [`EXTENSIONS`].
fn crypto_index(op: Crypto) -> usize {
    match op {
        Crypto::AesEnc => 0,
        Crypto::AesEncLast => 1,
        Crypto::AesDec => 2,
        Crypto::AesDecLast => 3,
        Crypto::AesImc => 4,
        Crypto::AesKeygen => 5,
        Crypto::Clmul => 6,
        Crypto::Sha1NextE => 7,
        Crypto::Sha1Msg1 => 8,
        Crypto::Sha1Msg2 => 9,
        Crypto::Sha256Msg1 => 10,
        Crypto::Sha256Msg2 => 11,
        Crypto::Sha1Rounds(function) => 12 + usize::from(function & 3),
        Crypto::GfMul => 16,
        Crypto::GfAffine => 17,
        Crypto::GfAffineInverse => 18,
    }
}
