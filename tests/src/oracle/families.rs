//! The instructions that are compared, in families.

use iced_x86::Mnemonic::{self, *};

/// A family of instructions.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What belongs to it.
    pub mnemonics: &'static [Mnemonic],
    /// It works on x87, MMX or SSE state.
    pub vector: bool,
    /// Translated code is compared with the host too. The vectors' is compared with the interpreter
    /// ([`super::engines`]), and that of the first integer instructions by the fuzzing of programs.
    pub translated: bool,
}

const fn integer(name: &'static str, mnemonics: &'static [Mnemonic]) -> Family {
    Family { name, mnemonics, vector: false, translated: false }
}

const fn vector(name: &'static str, mnemonics: &'static [Mnemonic]) -> Family {
    Family { name, mnemonics, vector: true, translated: false }
}

impl Family {
    const fn with_translated(self) -> Family {
        Family { translated: true, ..self }
    }
}

/// All families.
pub const FAMILIES: &[Family] = &[
    integer("arithmetic", &[Add, Adc, Sub, Sbb, And, Or, Xor, Cmp, Test, Inc, Dec, Neg, Not]),
    integer("shifts", &[Shl, Sal, Shr, Sar, Rol, Ror, Rcl, Rcr, Shld, Shrd]),
    integer("multiply_divide", &[Mul, Imul, Div, Idiv]),
    integer("bits", &[Bt, Bts, Btr, Btc, Bsf, Bsr, Popcnt, Bswap, Movbe]),
    integer("exchange", &[Xchg, Xadd, Cmpxchg, Cmpxchg8b, Cmpxchg16b]),
    integer(
        "moves",
        &[
            Mov, Movzx, Movsx, Movsxd, Lea, Cbw, Cwde, Cdqe, Cwd, Cdq, Cqo, Lahf, Sahf, Clc, Stc,
            Cmc, Cld, Std, Nop, Movnti,
        ],
    ),
    integer(
        "conditions",
        &[
            Seto, Setno, Setb, Setae, Sete, Setne, Setbe, Seta, Sets, Setns, Setp, Setnp, Setl,
            Setge, Setle, Setg, Cmovo, Cmovno, Cmovb, Cmovae, Cmove, Cmovne, Cmovbe, Cmova, Cmovs,
            Cmovns, Cmovp, Cmovnp, Cmovl, Cmovge, Cmovle, Cmovg,
        ],
    ),
    integer(
        "strings",
        &[
            Movsb, Movsw, Movsd, Movsq, Stosb, Stosw, Stosd, Stosq, Lodsb, Lodsw, Lodsd, Lodsq,
            Cmpsb, Cmpsw, Cmpsd, Cmpsq, Scasb, Scasw, Scasd, Scasq,
        ],
    ),
    integer("stack", &[Push, Pop, Leave]),
    integer(
        "bmi",
        &[
            Andn, Bextr, Blsi, Blsmsk, Blsr, Bzhi, Mulx, Pdep, Pext, Rorx, Sarx, Shlx, Shrx, Tzcnt,
            Lzcnt,
        ],
    )
    .with_translated(),
    integer("adx", &[Adcx, Adox]).with_translated(),
    vector(
        "sse_integer",
        &[
            Paddb, Paddw, Paddd, Paddq, Paddsb, Paddsw, Paddusb, Paddusw, Psubb, Psubw, Psubd,
            Psubq, Psubsb, Psubsw, Psubusb, Psubusw, Pmullw, Pmulld, Pmulhw, Pmulhuw, Pmulhrsw,
            Pmuludq, Pmuldq, Pmaddwd, Pmaddubsw, Pavgb, Pavgw, Psadbw, Mpsadbw, Phminposuw, Pand,
            Pandn, Por, Pxor, Pcmpeqb, Pcmpeqw, Pcmpeqd, Pcmpeqq, Pcmpgtb, Pcmpgtw, Pcmpgtd,
            Pcmpgtq, Pmaxsb, Pmaxsw, Pmaxsd, Pmaxub, Pmaxuw, Pmaxud, Pminsb, Pminsw, Pminsd,
            Pminub, Pminuw, Pminud, Pabsb, Pabsw, Pabsd, Psignb, Psignw, Psignd, Phaddw, Phaddd,
            Phaddsw, Phsubw, Phsubd, Phsubsw, Psllw, Pslld, Psllq, Pslldq, Psrlw, Psrld, Psrlq,
            Psrldq, Psraw, Psrad, Ptest, Crc32,
        ],
    ),
    vector(
        "sse_shuffle",
        &[
            Pshufb, Pshufw, Pshufd, Pshuflw, Pshufhw, Shufps, Shufpd, Unpcklps, Unpcklpd, Unpckhps,
            Unpckhpd, Punpcklbw, Punpcklwd, Punpckldq, Punpcklqdq, Punpckhbw, Punpckhwd, Punpckhdq,
            Punpckhqdq, Packsswb, Packssdw, Packuswb, Packusdw, Palignr, Pblendw, Blendps, Blendpd,
            Pblendvb, Blendvps, Blendvpd, Pinsrb, Pinsrw, Pinsrd, Pinsrq, Pextrb, Pextrw, Pextrd,
            Pextrq, Insertps, Extractps, Pmovmskb, Movmskps, Movmskpd, Pmovsxbw, Pmovsxbd,
            Pmovsxbq, Pmovsxwd, Pmovsxwq, Pmovsxdq, Pmovzxbw, Pmovzxbd, Pmovzxbq, Pmovzxwd,
            Pmovzxwq, Pmovzxdq, Pcmpestri, Pcmpestrm, Pcmpistri, Pcmpistrm,
        ],
    ),
    vector(
        "sse_moves",
        &[
            Movd, Movq, Movaps, Movapd, Movups, Movupd, Movdqa, Movdqu, Movss, Movsd, Movhps,
            Movhpd, Movlps, Movlpd, Movhlps, Movlhps, Movntps, Movntpd, Movntdq, Movntdqa, Movntq,
            Movdq2q, Movq2dq, Lddqu, Movddup, Movshdup, Movsldup, Ldmxcsr, Stmxcsr, Emms,
        ],
    ),
    vector(
        "sse_float",
        &[
            Addps, Addpd, Addss, Addsd, Subps, Subpd, Subss, Subsd, Mulps, Mulpd, Mulss, Mulsd,
            Divps, Divpd, Divss, Divsd, Sqrtps, Sqrtpd, Sqrtss, Sqrtsd, Minps, Minpd, Minss, Minsd,
            Maxps, Maxpd, Maxss, Maxsd, Andps, Andpd, Andnps, Andnpd, Orps, Orpd, Xorps, Xorpd,
            Haddps, Haddpd, Hsubps, Hsubpd, Addsubps, Addsubpd, Dpps, Dppd, Roundps, Roundpd,
            Roundss, Roundsd, Cmpps, Cmppd, Cmpss, Cmpsd, Comiss, Comisd, Ucomiss, Ucomisd,
        ],
    ),
    vector(
        "crypto",
        &[
            Aesenc,
            Aesenclast,
            Aesdec,
            Aesdeclast,
            Aesimc,
            Aeskeygenassist,
            Pclmulqdq,
            Sha1rnds4,
            Sha1nexte,
            Sha1msg1,
            Sha1msg2,
            Sha256rnds2,
            Sha256msg1,
            Sha256msg2,
            Gf2p8mulb,
            Gf2p8affineqb,
            Gf2p8affineinvqb,
        ],
    )
    .with_translated(),
    vector(
        "sse_convert",
        &[
            Cvtdq2ps, Cvtdq2pd, Cvtps2dq, Cvttps2dq, Cvtpd2dq, Cvttpd2dq, Cvtps2pd, Cvtpd2ps,
            Cvtss2sd, Cvtsd2ss, Cvtsi2ss, Cvtsi2sd, Cvtss2si, Cvttss2si, Cvtsd2si, Cvttsd2si,
            Cvtpi2ps, Cvtpi2pd, Cvtps2pi, Cvttps2pi, Cvtpd2pi, Cvttpd2pi,
        ],
    ),
    vector(
        "x87",
        &[
            Fadd, Faddp, Fiadd, Fsub, Fsubp, Fsubr, Fsubrp, Fisub, Fisubr, Fmul, Fmulp, Fimul,
            Fdiv, Fdivp, Fdivr, Fdivrp, Fidiv, Fidivr, Fld, Fild, Fbld, Fst, Fstp, Fist, Fistp,
            Fisttp, Fbstp, Fcom, Fcomp, Fcompp, Fucom, Fucomp, Fucompp, Fcomi, Fcomip, Fucomi,
            Fucomip, Ficom, Ficomp, Ftst, Fxam, Fabs, Fchs, Fsqrt, Frndint, Fscale, Fxtract, Fprem,
            Fprem1, Fld1, Fldz, Fldpi, Fldl2e, Fldl2t, Fldlg2, Fldln2, Fxch, Ffree, Fincstp,
            Fdecstp, Fnop, Fcmovb, Fcmove, Fcmovbe, Fcmovu, Fcmovnb, Fcmovne, Fcmovnbe, Fcmovnu,
            Fnstcw, Fldcw, Fnstsw, Fnclex, Fninit,
        ],
    ),
];
