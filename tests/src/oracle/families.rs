//! The instructions that are compared, in families.

use iced_x86::Mnemonic::{self, *};

/// A family of instructions.
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What belongs to it.
    pub mnemonics: &'static [Mnemonic],
    /// It works on x87, MMX, SSE or AVX state.
    pub vector: bool,
}

const fn integer(name: &'static str, mnemonics: &'static [Mnemonic]) -> Family {
    Family { name, mnemonics, vector: false }
}

const fn vector(name: &'static str, mnemonics: &'static [Mnemonic]) -> Family {
    Family { name, mnemonics, vector: true }
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
    vector(
        "avx_integer",
        &[
            Vpaddb, Vpaddw, Vpaddd, Vpaddq, Vpaddsb, Vpaddsw, Vpaddusb, Vpaddusw, Vpsubb,
            Vpsubw, Vpsubd, Vpsubq, Vpsubsb, Vpsubsw, Vpsubusb, Vpsubusw, Vpmullw, Vpmulld,
            Vpmulhw, Vpmulhuw, Vpmulhrsw, Vpmuludq, Vpmuldq, Vpmaddwd, Vpmaddubsw, Vpavgb,
            Vpavgw, Vpsadbw, Vmpsadbw, Vphminposuw, Vpand, Vpandn, Vpor, Vpxor, Vpcmpeqb,
            Vpcmpeqw, Vpcmpeqd, Vpcmpeqq, Vpcmpgtb, Vpcmpgtw, Vpcmpgtd, Vpcmpgtq, Vpmaxsb,
            Vpmaxsw, Vpmaxsd, Vpmaxub, Vpmaxuw, Vpmaxud, Vpminsb, Vpminsw, Vpminsd, Vpminub,
            Vpminuw, Vpminud, Vpabsb, Vpabsw, Vpabsd, Vpsignb, Vpsignw, Vpsignd, Vphaddw,
            Vphaddd, Vphaddsw, Vphsubw, Vphsubd, Vphsubsw, Vpsllw, Vpslld, Vpsllq, Vpslldq,
            Vpsrlw, Vpsrld, Vpsrlq, Vpsrldq, Vpsraw, Vpsrad, Vptest, Vpsllvd, Vpsllvq, Vpsrlvd,
            Vpsrlvq, Vpsravd,
        ],
    ),
    vector(
        "avx_shuffle",
        &[
            Vpshufb, Vpshufd, Vpshuflw, Vpshufhw, Vshufps, Vshufpd, Vunpcklps, Vunpcklpd,
            Vunpckhps, Vunpckhpd, Vpunpcklbw, Vpunpcklwd, Vpunpckldq, Vpunpcklqdq, Vpunpckhbw,
            Vpunpckhwd, Vpunpckhdq, Vpunpckhqdq, Vpacksswb, Vpackssdw, Vpackuswb, Vpackusdw,
            Vpalignr, Vpblendw, Vblendps, Vblendpd, Vpblendvb, Vblendvps, Vblendvpd, Vpinsrb,
            Vpinsrw, Vpinsrd, Vpinsrq, Vpextrb, Vpextrw, Vpextrd, Vpextrq, Vinsertps,
            Vextractps, Vpmovmskb, Vmovmskps, Vmovmskpd, Vpmovsxbw, Vpmovsxbd, Vpmovsxbq,
            Vpmovsxwd, Vpmovsxwq, Vpmovsxdq, Vpmovzxbw, Vpmovzxbd, Vpmovzxbq, Vpmovzxwd,
            Vpmovzxwq, Vpmovzxdq, Vpcmpestri, Vpcmpestrm, Vpcmpistri, Vpcmpistrm, Vpermilps,
            Vpermilpd, Vpermd, Vpermps, Vpermq, Vpermpd, Vperm2f128, Vperm2i128, Vpblendd,
            Vbroadcastss, Vbroadcastsd, Vbroadcastf128, Vbroadcasti128, Vpbroadcastb,
            Vpbroadcastw, Vpbroadcastd, Vpbroadcastq, Vinsertf128, Vinserti128, Vextractf128,
            Vextracti128,
        ],
    ),
    vector(
        "avx_moves",
        &[
            Vmovd, Vmovq, Vmovaps, Vmovapd, Vmovups, Vmovupd, Vmovdqa, Vmovdqu, Vmovss, Vmovsd,
            Vmovhps, Vmovhpd, Vmovlps, Vmovlpd, Vmovhlps, Vmovlhps, Vmovntps, Vmovntpd,
            Vmovntdq, Vmovntdqa, Vlddqu, Vmovddup, Vmovshdup, Vmovsldup, Vldmxcsr, Vstmxcsr,
            Vzeroupper, Vzeroall, Vmaskmovps, Vmaskmovpd, Vpmaskmovd, Vpmaskmovq, Vgatherdps,
            Vgatherdpd, Vgatherqps, Vgatherqpd, Vpgatherdd, Vpgatherdq, Vpgatherqd, Vpgatherqq,
        ],
    ),
    vector(
        "avx_float",
        &[
            Vaddps, Vaddpd, Vaddss, Vaddsd, Vsubps, Vsubpd, Vsubss, Vsubsd, Vmulps, Vmulpd,
            Vmulss, Vmulsd, Vdivps, Vdivpd, Vdivss, Vdivsd, Vsqrtps, Vsqrtpd, Vsqrtss, Vsqrtsd,
            Vminps, Vminpd, Vminss, Vminsd, Vmaxps, Vmaxpd, Vmaxss, Vmaxsd, Vandps, Vandpd,
            Vandnps, Vandnpd, Vorps, Vorpd, Vxorps, Vxorpd, Vhaddps, Vhaddpd, Vhsubps, Vhsubpd,
            Vaddsubps, Vaddsubpd, Vdpps, Vdppd, Vroundps, Vroundpd, Vroundss, Vroundsd, Vcmpps,
            Vcmppd, Vcmpss, Vcmpsd, Vcomiss, Vcomisd, Vucomiss, Vucomisd, Vtestps, Vtestpd,
        ],
    ),
    vector(
        "avx_convert",
        &[
            Vcvtdq2ps, Vcvtdq2pd, Vcvtps2dq, Vcvttps2dq, Vcvtpd2dq, Vcvttpd2dq, Vcvtps2pd,
            Vcvtpd2ps, Vcvtss2sd, Vcvtsd2ss, Vcvtsi2ss, Vcvtsi2sd, Vcvtss2si, Vcvttss2si,
            Vcvtsd2si, Vcvttsd2si, Vcvtph2ps, Vcvtps2ph,
        ],
    ),
    vector(
        "fma",
        &[
            Vfmadd132ps, Vfmadd132pd, Vfmadd132ss, Vfmadd132sd, Vfmadd213ps, Vfmadd213pd,
            Vfmadd213ss, Vfmadd213sd, Vfmadd231ps, Vfmadd231pd, Vfmadd231ss, Vfmadd231sd,
            Vfmsub132ps, Vfmsub132pd, Vfmsub132ss, Vfmsub132sd, Vfmsub213ps, Vfmsub213pd,
            Vfmsub213ss, Vfmsub213sd, Vfmsub231ps, Vfmsub231pd, Vfmsub231ss, Vfmsub231sd,
            Vfnmadd132ps, Vfnmadd132pd, Vfnmadd132ss, Vfnmadd132sd, Vfnmadd213ps, Vfnmadd213pd,
            Vfnmadd213ss, Vfnmadd213sd, Vfnmadd231ps, Vfnmadd231pd, Vfnmadd231ss, Vfnmadd231sd,
            Vfnmsub132ps, Vfnmsub132pd, Vfnmsub132ss, Vfnmsub132sd, Vfnmsub213ps, Vfnmsub213pd,
            Vfnmsub213ss, Vfnmsub213sd, Vfnmsub231ps, Vfnmsub231pd, Vfnmsub231ss, Vfnmsub231sd,
            Vfmaddsub132ps, Vfmaddsub132pd, Vfmaddsub213ps, Vfmaddsub213pd, Vfmaddsub231ps,
            Vfmaddsub231pd, Vfmsubadd132ps, Vfmsubadd132pd, Vfmsubadd213ps, Vfmsubadd213pd,
            Vfmsubadd231ps, Vfmsubadd231pd,
        ],
    ),
];
