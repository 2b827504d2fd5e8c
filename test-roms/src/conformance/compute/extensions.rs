//! A known answer of each extension that has no ROM of its own, in 64-bit mode.

use iced_x86::code_asm::*;

use crate::conformance::features::*;
use crate::conformance::long::kit::{self, About, Kit, SCRATCH};
use crate::conformance::{NOTHING, Rom, exception};
use crate::rom::{Emit, emit};

const UD: u8 = 6;
const GP: u8 = 13;
const TSC_AUX: u32 = 0xc000_0103;
const CR4_OSXSAVE: u32 = 18;

type Code = fn(&mut Kit<'_, '_>) -> Emit;
/// A feature, the instruction, code that leaves the answer in RAX, and that.
type Row = (Feature, &'static str, Code, u64);

pub(in crate::conformance) fn rom() -> Emit<Rom> {
    let about = About {
        name: "extensions",
        about: "a known answer of each extension that CPUID shows",
        needs: &[],
        five_levels: false,
    };
    kit::rom(about, |a| {
        known(a, &integers())?;
        known(a, &vectors())?;
        avx(a)?;
        saved_state(a)?;
        registers(a)?;
        system(a)
    })
}

fn known(a: &mut Kit<'_, '_>, rows: &[Row]) -> Emit {
    for &(feature, name, code, answer) in rows {
        a.need(&[feature]);
        let name = format!("{}: {name}", feature.name);
        a.value(name, "SDM vol. 2", [answer, u64::MAX], code)?;
    }
    a.need(&[]);
    Ok(())
}

/// `compute` of XMM0 and XMM1 to XMM0, whose low half is the answer.
fn of(a: &mut Kit<'_, '_>, [v, w]: [u128; 2], compute: Code) -> Emit {
    let [v, w] = [v, w].map(|v| a.constant(&v.to_le_bytes()));
    emit!(a; movdqu(xmm0, xmmword_ptr(v)); movdqu(xmm1, xmmword_ptr(w)););
    compute(a)?;
    a.movq(rax, xmm0)
}

/// CF: a number was there.
fn drawn(a: &mut Kit<'_, '_>, draw: Code) -> Emit {
    draw(a)?;
    emit!(a; setc(al); movzx(eax, al););
    Ok(())
}

fn integers() -> [Row; 12] {
    [
        (
            FPU,
            "FLD1, FADD to itself, FISTP",
            |a| {
                emit!(a; fninit(); fld1(); fadd_2(st0, st0); fistp(qword_ptr(SCRATCH)); mov(rax, qword_ptr(SCRATCH)););
                Ok(())
            },
            2,
        ),
        (
            MMX,
            "PADDUSB",
            |a| {
                emit!(a;
                    mov(rax, 0x0102_0304_f0f1_f2f3u64);
                    movq(mm0, rax);
                    paddusb(mm0, mm0);
                    movq(rax, mm0);
                    emms();
                );
                Ok(())
            },
            0x0204_0608_ffff_ffff,
        ),
        (
            CMPXCHG8B,
            "CMPXCHG8B that is equal",
            |a| {
                emit!(a;
                    mov(qword_ptr(SCRATCH), 5);
                    mov(eax, 5u32);
                    xor(edx, edx);
                    mov(ebx, 7u32);
                    mov(ecx, 9u32);
                    cmpxchg8b(qword_ptr(SCRATCH));
                    mov(rax, qword_ptr(SCRATCH));
                );
                Ok(())
            },
            9 << 32 | 7,
        ),
        (
            TSC,
            "RDTSC counts",
            |a| {
                emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); mov(rbx, rax); rdtsc(); shl(rdx, 32); or(rax, rdx); cmp(rbx, rax); setc(al); movzx(eax, al););
                Ok(())
            },
            1,
        ),
        (
            RDTSCP,
            "RDTSCP tells TSC_AUX",
            |a| {
                a.msr(TSC_AUX, 77)?;
                emit!(a; rdtscp(); mov(eax, ecx););
                Ok(())
            },
            77,
        ),
        (
            RDPID,
            "RDPID",
            |a| {
                a.msr(TSC_AUX, 78)?;
                a.rdpid(rax)
            },
            78,
        ),
        (RDRAND, "RDRAND", |a| drawn(a, |a| a.rdrand(rax)), 1),
        (RDSEED, "RDSEED", |a| drawn(a, |a| a.rdseed(rax)), 1),
        (
            PREFETCHW,
            "PREFETCHW of anything",
            |a| {
                emit!(a; mov(rax, 0x8000_0000_0000u64); prefetchw(byte_ptr(rax)); mov(eax, 1u32););
                Ok(())
            },
            1,
        ),
        (
            CLFLUSHOPT,
            "CLFLUSHOPT of RAM",
            |a| {
                emit!(a; clflushopt(byte_ptr(SCRATCH)); mov(eax, 1u32););
                Ok(())
            },
            1,
        ),
        (
            CLWB,
            "CLWB of RAM",
            |a| {
                emit!(a; clwb(byte_ptr(SCRATCH)); mov(eax, 1u32););
                Ok(())
            },
            1,
        ),
        (
            SERIALIZE,
            "SERIALIZE",
            |a| {
                emit!(a; serialize(); mov(eax, 1u32););
                Ok(())
            },
            1,
        ),
    ]
}

fn vectors() -> [Row; 14] {
    [
        (
            SSE,
            "ADDPS",
            |a| of(a, [0x4000_0000_3f80_0000; 2], |a| a.addps(xmm0, xmm1)),
            0x4080_0000_4000_0000,
        ),
        (SSE2, "PADDQ", |a| of(a, [u128::MAX, 2], |a| a.paddq(xmm0, xmm1)), 1),
        (
            SSE3,
            "HADDPS",
            |a| of(a, [0x4000_0000_3f80_0000, 0], |a| a.haddps(xmm0, xmm1)),
            0x4040_0000,
        ),
        (
            SSSE3,
            "PSHUFB",
            |a| of(a, [0x0403_0201, 0x8080_8080_0001_0203], |a| a.pshufb(xmm0, xmm1)),
            0x0102_0304,
        ),
        (SSE4_1, "PMULLD", |a| of(a, [1000, 1000], |a| a.pmulld(xmm0, xmm1)), 1_000_000),
        (
            SSE4_1,
            "ROUNDSD to even",
            |a| of(a, [0, 0x4004_0000_0000_0000], |a| a.roundsd(xmm0, xmm1, 0)),
            0x4000_0000_0000_0000,
        ),
        (SSE4_2, "PCMPGTQ", |a| of(a, [1, u64::MAX.into()], |a| a.pcmpgtq(xmm0, xmm1)), u64::MAX),
        (
            SSE4_2,
            "PCMPISTRI finds the b of \"cab\"",
            |a| {
                of(a, [0x62, 0x62_6163], |a| {
                    emit!(a; pcmpistri(xmm0, xmm1, 0); movd(xmm0, ecx););
                    Ok(())
                })
            },
            2,
        ),
        // FIPS 197: the S-box has 63h for 0, and equal bytes do not mix.
        (
            AESNI,
            "AESENC of zeros",
            |a| of(a, [0, 0], |a| a.aesenc(xmm0, xmm1)),
            0x6363_6363_6363_6363,
        ),
        (PCLMULQDQ, "PCLMULQDQ: (x+1)^2", |a| of(a, [3, 3], |a| a.pclmulqdq(xmm0, xmm1, 0)), 5),
        // E rotated by 30, from the highest doubleword to itself.
        (
            SHA,
            "SHA1NEXTE",
            |a| {
                of(a, [1 << 96, 0], |a| {
                    emit!(a; sha1nexte(xmm0, xmm1); psrldq(xmm0, 12););
                    Ok(())
                })
            },
            1 << 30,
        ),
        // W0 + sigma0(W1), and W1 + sigma0(W2) = 8.
        (
            SHA,
            "SHA256MSG1",
            |a| of(a, [8 << 32, 0], |a| a.sha256msg1(xmm0, xmm1)),
            8 << 32 | 0x1002_0001,
        ),
        // FIPS 197, 4.2.
        (GFNI, "GF2P8MULB: 57h by 83h", |a| of(a, [0x57, 0x83], |a| a.gf2p8mulb(xmm0, xmm1)), 0xc1),
        // The identity matrix, and the constant of the AES S-box.
        (
            GFNI,
            "GF2P8AFFINEQB by the identity",
            |a| of(a, [0x1234, 0x0102_0408_1020_4080], |a| a.gf2p8affineqb(xmm0, xmm1, 0x63)),
            0x6363_6363_6363_7157,
        ),
    ]
}

/// With CR4.OSXSAVE and XCR0: what VEX-encoded instructions do, 256 bits wide, and #UD without.
fn avx(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2; vol. 1 13.3, 14.1.1";
    const ONES: u128 = 0x3ff0_0000_0000_0000_3ff0_0000_0000_0000;
    a.need(&[AVX]);
    a.probe("AVX: #UD without CR4.OSXSAVE", SOURCE, exception(UD, 0), |a| a.vzeroupper())?;
    a.attempt(|a| {
        emit!(a; mov(rax, cr4); bts(eax, CR4_OSXSAVE); mov(cr4, rax););
        Ok(())
    })?;
    a.probe("AVX: #UD without XCR0", SOURCE, exception(UD, 0), |a| a.vzeroupper())?;
    a.probe("XSETBV: AVX without SSE", SOURCE, exception(GP, 0), |a| {
        emit!(a; xor(ecx, ecx); xor(edx, edx); mov(eax, 5u32); xsetbv(););
        Ok(())
    })?;
    a.probe("XSETBV: all of AVX", SOURCE, NOTHING, |a| {
        emit!(a; xor(ecx, ecx); xor(edx, edx); mov(eax, 7u32); xsetbv(););
        Ok(())
    })?;
    // YMM0 and YMM1 hold 1.0 four times; the answer is the highest element.
    let one = a.constant(&[ONES, ONES].map(u128::to_le_bytes).concat());
    let high: &[Row] = &[
        (AVX, "VADDPD of 256 bits", |a| a.vaddpd(ymm0, ymm0, ymm1), 0x4000_0000_0000_0000),
        (AVX, "a VEX.128 instruction clears the upper half", |a| a.vaddpd(xmm0, xmm0, xmm1), 0),
        (
            AVX,
            "an SSE instruction keeps the upper half",
            |a| a.addpd(xmm0, xmm1),
            0x3ff0_0000_0000_0000,
        ),
        (AVX2, "VPADDQ of 256 bits", |a| a.vpaddq(ymm0, ymm0, ymm1), 0x7fe0_0000_0000_0000),
        (FMA, "VFMADD231PD: 1 * 1 + 1", |a| a.vfmadd231pd(ymm0, ymm1, ymm1), 0x4000_0000_0000_0000),
        // The single-precision numbers of a double 1.0 are 1.875 and 0: halves 3F80h and 0.
        (
            F16C,
            "VCVTPS2PH and back",
            |a| {
                emit!(a; vcvtps2ph(xmm2, ymm1, 0); vcvtph2ps(ymm0, xmm2););
                Ok(())
            },
            0x3ff0_0000_0000_0000,
        ),
        (
            VAES,
            "VAESENC of 256 bits",
            |a| {
                emit!(a; vpxor(ymm0, ymm0, ymm0); vaesenc(ymm0, ymm0, ymm0););
                Ok(())
            },
            0x6363_6363_6363_6363,
        ),
        // (x^62 + ... + x^52)^2 by carries that do not exist: every second bit.
        (
            VPCLMULQDQ,
            "VPCLMULQDQ of 256 bits",
            |a| a.vpclmulqdq(ymm0, ymm0, ymm1, 0x11),
            0x0555_5500_0000_0000,
        ),
    ];
    for &(feature, name, code, answer) in high {
        a.need(&[AVX, feature]);
        a.value(format!("{}: {name}", feature.name), SOURCE, [answer, u64::MAX], |a| {
            emit!(a; vmovupd(ymm0, ymmword_ptr(one)); vmovupd(ymm1, ymmword_ptr(one)););
            code(a)?;
            emit!(a; vmovupd(ymmword_ptr(SCRATCH), ymm0); mov(rax, qword_ptr(SCRATCH + 24)););
            Ok(())
        })?;
    }
    a.need(&[]);
    Ok(())
}

/// XSAVE and its forms: what they write, compacted or not, and FXSAVE.
fn saved_state(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 1 10.5, 13.4, 13.7 to 13.11";
    const AREA: u32 = SCRATCH + 0x400;
    const XSTATE_BV: u32 = AREA + 512;
    const XCOMP_BV: u32 = AREA + 520;
    /// All of x87, SSE and AVX.
    const ALL: u32 = 7;
    const MARK: u64 = 0x1234_5678_9abc_def0;
    a.need(&[FXSR]);
    a.value("FXSR: FXSAVE holds XMM0", SOURCE, [MARK, u64::MAX], |a| {
        emit!(a; mov(rax, MARK); movq(xmm0, rax); fxsave(ptr(AREA)); mov(rax, qword_ptr(AREA + 160)););
        Ok(())
    })?;
    let forms: [(Feature, Code, u64); 4] = [
        (XSAVE, |a| a.xsave(ptr(AREA)), 0),
        (XSAVEOPT, |a| a.xsaveopt(ptr(AREA)), 0),
        (XSAVEC, |a| a.xsavec(ptr(AREA)), 1 << 63 | ALL as u64),
        (XSAVES, |a| a.xsaves(ptr(AREA)), 1 << 63 | ALL as u64),
    ];
    for (feature, code, compacted) in forms {
        a.need(&[AVX, feature]);
        a.attempt(|a| {
            emit!(a;
                mov(edi, AREA);
                mov(ecx, 0x100u32);
                xor(eax, eax);
                rep_stosd();
                vzeroall();
                mov(rax, MARK);
                vmovq(xmm1, rax);
                vinsertf128(ymm1, ymm1, xmm1, 1);
                mov(eax, ALL);
                xor(edx, edx);
            );
            code(a)
        })?;
        let name = |what: &str| format!("{}: {what}", feature.name);
        // SSE and AVX are in use; whether x87 is is up to the processor.
        a.value(name("XSTATE_BV"), SOURCE, [6, 6], |a| a.mov(rax, qword_ptr(XSTATE_BV)))?;
        a.holds(name("XCOMP_BV"), SOURCE, XCOMP_BV, compacted)?;
        a.holds(name("XMM1"), SOURCE, AREA + 176, MARK)?;
        // The upper halves lie behind the header, at 576 in both formats.
        a.holds(name("the upper half of YMM1"), SOURCE, AREA + 576 + 16, MARK)?;
        a.value(name("XRSTOR"), SOURCE, [MARK, u64::MAX], |a| {
            emit!(a; vzeroall(); mov(eax, ALL); xor(edx, edx););
            if feature == XSAVES {
                a.xrstors(ptr(AREA))?
            } else {
                a.xrstor(ptr(AREA))?
            }
            emit!(a; vextractf128(xmm0, ymm1, 1); vmovq(rax, xmm0););
            Ok(())
        })?;
    }
    a.need(&[AVX, XGETBV_1]);
    a.value("XGETBV of 1: AVX is not in use after VZEROALL", SOURCE, [0, 4], |a| {
        emit!(a; vzeroall(); mov(ecx, 1u32); xgetbv(););
        Ok(())
    })?;
    a.value("XGETBV of 1: AVX is in use", SOURCE, [4, 4], |a| {
        emit!(a; vmovupd(ymm0, ymmword_ptr(AREA)); vpcmpeqd(ymm0, ymm0, ymm0); mov(ecx, 1u32); xgetbv(););
        Ok(())
    })?;
    a.need(&[]);
    Ok(())
}

/// MSRs that features bring.
fn registers(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 4 table 2-2; vol. 3A 12.11, 12.12, 16.3, 18.17.3";
    let read = |a: &mut Kit<'_, '_>, msr: u32| -> Emit {
        emit!(a; mov(ecx, msr); rdmsr(); shl(rdx, 32); or(rax, rdx););
        Ok(())
    };
    a.need(&[MSR]);
    a.probe("MSR: RDMSR of what does not exist", SOURCE, exception(GP, 0), |a| {
        read(a, 0x1234_5678)
    })?;
    a.need(&[PAT]);
    a.value("PAT: what it is after reset", SOURCE, [0x0007_0406_0007_0406, u64::MAX], |a| {
        read(a, 0x277)
    })?;
    a.probe("PAT: a type that does not exist", SOURCE, exception(GP, 0), |a| a.msr(0x277, 2))?;
    a.need(&[MTRR]);
    a.value("MTRR: the default type is read as written", SOURCE, [0xc06, u64::MAX], |a| {
        a.msr(0x2ff, 0xc06)?;
        read(a, 0x2ff)
    })?;
    a.probe("MTRR: a type that does not exist", SOURCE, exception(GP, 0), |a| a.msr(0x2ff, 0xc02))?;
    a.attempt(|a| a.msr(0x2ff, 0))?;
    a.need(&[MCA]);
    a.value("MCA: there are banks", SOURCE, [1, u64::MAX], |a| {
        read(a, 0x179)?;
        emit!(a; and(eax, 0xff); setnz(al); movzx(eax, al););
        Ok(())
    })?;
    a.need(&[MCE]);
    a.value("MCE: CR4.MCE can be set", SOURCE, [0x40, 0x40], |a| {
        emit!(a; mov(rax, cr4); or(eax, 0x40); mov(cr4, rax); mov(rax, cr4););
        Ok(())
    })?;
    a.need(&[TSC_ADJUST]);
    a.value("TSC_ADJUST: it moves the TSC", SOURCE, [1, u64::MAX], |a| {
        // By 2^40 and back: the difference is 2^40 or a little more.
        emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); mov(rbx, rax););
        a.msr(0x3b, 1 << 40)?;
        emit!(a; rdtsc(); shl(rdx, 32); or(rax, rdx); sub(rax, rbx); shr(rax, 40); mov(rbx, rax););
        a.msr(0x3b, 0)?;
        a.mov(rax, rbx)
    })?;
    a.need(&[IBRS]);
    a.probe("IBRS and IBPB: the MSRs exist", SOURCE, NOTHING, |a| {
        read(a, 0x48)?;
        a.msr(0x49, 1)
    })?;
    a.need(&[ARCH_CAPABILITIES]);
    a.probe("ARCH_CAPABILITIES can be read", SOURCE, NOTHING, |a| read(a, 0x10a))?;
    a.probe("ARCH_CAPABILITIES cannot be written", SOURCE, exception(GP, 0), |a| a.msr(0x10a, 0))?;
    a.need(&[HYPERVISOR]);
    a.value("HYPERVISOR: leaf 40000000h has leaves behind it", SOURCE, [1, u64::MAX], |a| {
        emit!(a; mov(eax, 0x4000_0000u32); cpuid(); shr(eax, 30); movzx(eax, al););
        Ok(())
    })?;
    a.need(&[]);
    Ok(())
}

/// What the supervisor has: INVPCID, global pages, UMIP, caches.
fn system(a: &mut Kit<'_, '_>) -> Emit {
    const SOURCE: &str = "SDM vol. 2, INVPCID, WBNOINVD; vol. 3A 2.5, 4.10.2.4";
    /// A page that is mapped by a table of its own, and its entry.
    const LINEAR: u32 = 0x4000_0000;
    const DIRECTORY: u32 = SCRATCH + 0x2_0000;
    const TABLE: u32 = SCRATCH + 0x2_1000;
    const PAGES: [u32; 2] = [SCRATCH + 0x2_2000, SCRATCH + 0x2_3000];
    const GLOBAL: u32 = 0x100;
    const ALL: u32 = kit::PRESENT | kit::WRITABLE;
    a.need(&[INVPCID]);
    a.probe("INVPCID of a type that does not exist", SOURCE, exception(GP, 0), |a| {
        emit!(a; mov(eax, 4u32); invpcid(rax, xmmword_ptr(SCRATCH)););
        Ok(())
    })?;
    a.probe("INVPCID of everything", SOURCE, NOTHING, |a| {
        emit!(a; mov(eax, 2u32); mov(qword_ptr(SCRATCH), 0); invpcid(rax, xmmword_ptr(SCRATCH)););
        Ok(())
    })?;
    a.probe("INVPCID at level 3", SOURCE, exception(GP, 0), |a| {
        a.enter_user(0)?;
        emit!(a; mov(eax, 2u32); invpcid(rax, xmmword_ptr(kit::USER_ALIAS + SCRATCH)););
        Ok(())
    })?;
    a.need(&[PGE]);
    // A global translation outlives MOV to CR3, and not MOV to CR4 that changes PGE.
    let read = |a: &mut Kit<'_, '_>, name: &str, values: [u64; 2], flush: Code| {
        a.value(name, SOURCE, values, |a| {
            emit!(a;
                mov(qword_ptr(kit::POINTERS + 8), (DIRECTORY | ALL) as i32);
                mov(qword_ptr(DIRECTORY), (TABLE | ALL) as i32);
                mov(qword_ptr(TABLE), (PAGES[0] | ALL | GLOBAL) as i32);
                mov(qword_ptr(PAGES[0]), 1);
                mov(qword_ptr(PAGES[1]), 2);
                mov(rax, cr4);
                or(eax, 0x80);
                mov(cr4, rax);
                mov(edi, LINEAR);
                invlpg(ptr(rdi));
                mov(rax, qword_ptr(rdi));
                mov(qword_ptr(TABLE), (PAGES[1] | ALL | GLOBAL) as i32);
            );
            flush(a)?;
            a.mov(rax, qword_ptr(rdi))
        })
    };
    read(a, "PGE: a change of CR4.PGE flushes a global page", [2, u64::MAX], |a| {
        emit!(a; mov(rax, cr4); btr(eax, 7); mov(cr4, rax););
        Ok(())
    })?;
    read(a, "PGE: INVLPG flushes a global page", [2, u64::MAX], |a| a.invlpg(ptr(rdi)))?;
    a.need(&[UMIP]);
    for (name, code) in [
        ("SGDT", (|a: &mut Kit<'_, '_>| a.sgdt(ptr(kit::USER_ALIAS + SCRATCH))) as Code),
        ("SIDT", |a| a.sidt(ptr(kit::USER_ALIAS + SCRATCH))),
        ("SLDT", |a| a.sldt(eax)),
        ("STR", |a| a.str(eax)),
        ("SMSW", |a| a.smsw(eax)),
    ] {
        for (umip, expected) in [(0u32, NOTHING), (1, exception(GP, 0))] {
            let name = format!("UMIP={umip}: {name} at level 3");
            a.probe(name, "SDM vol. 3A 2.5, CR4.UMIP", expected, |a| {
                emit!(a; mov(rax, cr4); btr(eax, 11); or(eax, (umip << 11) as i32); mov(cr4, rax););
                a.enter_user(0)?;
                code(a)?;
                a.back()
            })?;
        }
    }
    a.need(&[WBNOINVD]);
    a.probe("WBNOINVD at level 3", SOURCE, exception(GP, 0), |a| {
        a.enter_user(0)?;
        a.wbnoinvd()
    })?;
    a.probe("WBNOINVD", SOURCE, NOTHING, |a| a.wbnoinvd())?;
    a.need(&[]);
    Ok(())
}
