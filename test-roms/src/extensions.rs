//! A ROM that computes a known answer with an instruction of each extension that needs neither AVX
//! nor 64-bit mode, in 32-bit protected mode.

use iced_x86::code_asm::*;

use crate::rom::tables::{self, CODE, DATA, PAGES, SIZE32, segment};
use crate::rom::{Emit, Mode, ROM_BASE, RomBuilder, Section, emit};

const EXIT_PORT: u16 = 0xF4;
const CODE32: u16 = 8;
const DATA32: u32 = 16;
const CR0_PE: u32 = 1;
const CR4_OSFXSR: u32 = 1 << 9;
const TSC_AUX: u32 = 0xC000_0103;

/// Leaves its result in EAX. EBP is not its own.
type Compute = fn(&mut Section<'_>) -> Emit;

/// Names, computations, and what each is to result in.
const CHECKS: [(&str, Compute, u32); 31] = [
    ("POPCNT", |a| unary(a, 0xF0F0, |a| a.popcnt(eax, ecx)), 8),
    ("TZCNT", |a| unary(a, 0x10, |a| a.tzcnt(eax, ecx)), 4),
    ("LZCNT", |a| unary(a, 1, |a| a.lzcnt(eax, ecx)), 31),
    ("BLSI", |a| unary(a, 0x58, |a| a.blsi(eax, ecx)), 0x08),
    ("BLSR", |a| unary(a, 0x58, |a| a.blsr(eax, ecx)), 0x50),
    ("BLSMSK", |a| unary(a, 0x58, |a| a.blsmsk(eax, ecx)), 0x0F),
    ("RORX", |a| unary(a, 0x1234_5678, |a| a.rorx(eax, ecx, 8)), 0x7812_3456),
    ("ANDN", |a| binary(a, 0xFF, 0x1234, |a| a.andn(eax, ecx, edx)), 0x1200),
    ("BEXTR", |a| binary(a, 0x1234_5678, 0x0808, |a| a.bextr(eax, ecx, edx)), 0x56),
    ("BZHI", |a| binary(a, u32::MAX, 12, |a| a.bzhi(eax, ecx, edx)), 0xFFF),
    ("MULX", |a| binary(a, u32::MAX, u32::MAX, |a| a.mulx(eax, ebx, ecx)), 0xFFFF_FFFE),
    ("PDEP", |a| binary(a, 0b101, 0xF0F0, |a| a.pdep(eax, ecx, edx)), 0x50),
    ("PEXT", |a| binary(a, 0x50, 0xF0F0, |a| a.pext(eax, ecx, edx)), 0b101),
    ("SARX", |a| binary(a, 1 << 31, 31, |a| a.sarx(eax, ecx, edx)), u32::MAX),
    ("SHLX", |a| binary(a, 1, 5, |a| a.shlx(eax, ecx, edx)), 1 << 5),
    ("SHRX", |a| binary(a, 1 << 31, 31, |a| a.shrx(eax, ecx, edx)), 1),
    ("ADCX", adcx, 1),
    ("ADOX", adox, 1),
    ("CRC32", crc32, 0xB798_B438),
    ("MOVBE", movbe, 0x1234_5678),
    ("RDPID", rdpid, 77),
    ("RDRAND", |a| drawn(a, |a| a.rdrand(eax)), 1),
    ("RDSEED", |a| drawn(a, |a| a.rdseed(eax)), 1),
    ("HADDPS", |a| vectors(a, 0x4000_0000_3F80_0000, 0, |a| a.haddps(xmm0, xmm1)), 0x4040_0000),
    ("PSHUFB", |a| vectors(a, 0x0403_0201, 0x0001_0203, |a| a.pshufb(xmm0, xmm1)), 0x0102_0304),
    ("PMULLD", |a| vectors(a, 1000, 1000, |a| a.pmulld(xmm0, xmm1)), 1_000_000),
    // FIPS 197: the S-box has 63h for 0, and equal bytes do not mix.
    ("AESENC", |a| vectors(a, 0, 0, |a| a.aesenc(xmm0, xmm1)), 0x6363_6363),
    ("PCLMULQDQ", |a| vectors(a, 3, 3, |a| a.pclmulqdq(xmm0, xmm1, 0)), 5),
    // E rotated by 30, from the highest doubleword to itself.
    ("SHA1NEXTE", |a| vectors(a, 1 << 96, 0, sha1nexte), 1 << 30),
    // W0 + sigma0(W1).
    ("SHA256MSG1", |a| vectors(a, 8 << 32, 0, |a| a.sha256msg1(xmm0, xmm1)), 0x1002_0001),
    // FIPS 197, 4.2.
    ("GF2P8MULB", |a| vectors(a, 0x57, 0x83, |a| a.gf2p8mulb(xmm0, xmm1)), 0xC1),
];

/// `compute` of ECX.
fn unary(a: &mut Section<'_>, v: u32, compute: Compute) -> Emit {
    a.mov(ecx, v)?;
    compute(a)
}

/// `compute` of ECX and EDX.
fn binary(a: &mut Section<'_>, v: u32, w: u32, compute: Compute) -> Emit {
    a.mov(edx, w)?;
    unary(a, v, compute)
}

/// `compute` of XMM0 and XMM1 to XMM0.
fn vectors(a: &mut Section<'_>, v: u128, w: u128, compute: Compute) -> Emit {
    let [v, w] = [v, w].map(|v| a.constant(&v.to_le_bytes()));
    emit!(a; movdqu(xmm0, xmmword_ptr(v)); movdqu(xmm1, xmmword_ptr(w)););
    compute(a)?;
    a.movd(eax, xmm0)
}

fn sha1nexte(a: &mut Section<'_>) -> Emit {
    emit!(a; sha1nexte(xmm0, xmm1); psrldq(xmm0, 12););
    Ok(())
}

/// The carry of the first addition reaches the second, past what changes the other flags.
fn adcx(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, u32::MAX);
        xor(ecx, ecx);
        stc();
        adcx(eax, ecx);
        inc(ecx);
        dec(ecx);
        adcx(eax, ecx);
    );
    Ok(())
}

/// The same through OF, past a CLC.
fn adox(a: &mut Section<'_>) -> Emit {
    emit!(a;
        mov(eax, u32::MAX);
        mov(edx, 1u32);
        xor(ecx, ecx);
        adox(eax, edx);
        clc();
        adox(eax, ecx);
    );
    Ok(())
}

/// The register behind four zero bytes.
fn crc32(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(eax, u32::MAX); xor(ecx, ecx); crc32(eax, ecx););
    Ok(())
}

fn movbe(a: &mut Section<'_>) -> Emit {
    let bytes = a.constant(&[0x12, 0x34, 0x56, 0x78]);
    a.movbe(eax, dword_ptr(bytes))
}

fn rdpid(a: &mut Section<'_>) -> Emit {
    emit!(a; mov(ecx, TSC_AUX); mov(eax, 77u32); xor(edx, edx); wrmsr(); rdpid(eax););
    Ok(())
}

/// CF: a number was there.
fn drawn(a: &mut Section<'_>, draw: Compute) -> Emit {
    draw(a)?;
    emit!(a; setc(al); movzx(eax, al););
    Ok(())
}

fn emit_checks(a: &mut Section<'_>) -> Emit {
    emit!(a;
        at("checks");
        mov(eax, DATA32);
        mov(ds, eax);
        mov(eax, cr4);
        or(eax, CR4_OSFXSR);
        mov(cr4, eax);
    );
    for (n, (_, compute, expected)) in CHECKS.iter().enumerate() {
        a.mov(ebp, n as u32 + 1)?;
        compute(a)?;
        emit!(a; cmp(eax, *expected); jne -> ".end";);
    }
    emit!(a;
        xor(ebp, ebp);
        at(".end");
        mov(eax, ebp);
        mov(edx, u32::from(EXIT_PORT));
        out(dx, al);
        at(".halt");
        hlt();
        jmp -> ".halt";
    );
    Ok(())
}

fn emit_entry(a: &mut Section<'_>, checks: u32) -> Emit {
    let flat = |access| segment(0, 0xF_FFFF, access, PAGES | SIZE32);
    let gdt = tables::bytes(&[0, flat(CODE), flat(DATA)]);
    let at = a.constant(&gdt);
    let gdtr = a.constant(&tables::table_register(u64::from(ROM_BASE + at), gdt.len()));
    emit!(a;
        at("entry");
        lgdt(ptr(gdtr).cs());
        mov(eax, cr0);
        or(eax, CR0_PE);
        mov(cr0, eax);
        jmp_far32(CODE32, checks);
    );
    Ok(())
}

/// Exits with 0 if all instructions give what they should, with the number of the first that does
/// not otherwise ([`extension_name`]).
pub fn extensions_rom() -> Vec<u8> {
    let build = || -> Emit<Vec<u8>> {
        let mut rom = RomBuilder::new();
        let checks = rom.section(Mode::Bits32, ROM_BASE, emit_checks)?;
        let checks = checks.address_of("checks");
        let entry = rom.section(Mode::Bits16, 0, |a| emit_entry(a, checks))?;
        Ok(rom.finish(u16::try_from(entry.address_of("entry")).expect("offsets are 16 bits")))
    };
    build().expect("the ROM's instructions are all encodable")
}

/// The instruction that [`extensions_rom`] means by an exit status.
pub fn extension_name(status: i32) -> Option<&'static str> {
    CHECKS.get(usize::try_from(status).ok()?.checked_sub(1)?).map(|(name, ..)| *name)
}
