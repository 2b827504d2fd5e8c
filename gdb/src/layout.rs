//! The register file as debuggers see it: numbers, names, types and order, and the description in
//! XML that tells them. One file serves a whole session, whatever the guest's mode.

use std::fmt::Write;
use std::sync::OnceLock;

use crate::registers::{GENERAL, SEGMENTS};

/// A register that debuggers know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// A general register, in encoding order.
    General(u8),
    /// The linear address of the next instruction: RIP with the base of CS applied.
    Pc,
    /// RFLAGS.
    Flags,
    /// The selector in a segment register, in encoding order.
    Selector(u8),
    /// The base of a segment register, in encoding order.
    Base(u8),
    /// ST(0) to ST(7), 80 bits.
    St(u8),
    /// A field of the x87 environment.
    Fpu(Fpu),
    /// XMM0 to XMM15.
    Xmm(u8),
    /// The upper half of YMM0 to YMM15.
    YmmUpper(u8),
    /// The SSE control and status register.
    Mxcsr,
    /// A control register: 0, 2, 3, 4 or 8.
    Cr(u8),
    /// A debug register, the guest's own: 0 to 3, 6 or 7.
    Dr(u8),
    /// The EFER MSR.
    Efer,
    /// The base that SWAPGS exchanges with that of GS.
    KernelGsBase,
    /// A descriptor table or the register that names one.
    Table(Table),
    /// The instruction pointer without the base of CS.
    Offset,
    /// The privilege level.
    Cpl,
    /// The default operand size of the code that runs, in bits: read-only.
    CodeBits,
}

/// Fields of the x87 environment, by their numbers in GDB's core feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Fpu {
    Control,
    Status,
    Tag,
    CodeSegment,
    CodeOffset,
    DataSegment,
    DataOffset,
    Opcode,
}

/// Descriptor-table registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Table {
    GdtBase,
    GdtLimit,
    IdtBase,
    IdtLimit,
    Ldt,
    LdtBase,
    Task,
    TaskBase,
}

/// A register's place in the file.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The register.
    pub register: Register,
    /// Its name in lower case.
    pub name: String,
    /// Its size in bits, a multiple of 8.
    pub bits: u32,
    kind: &'static str,
    group: Option<&'static str>,
}

impl Entry {
    /// Its size in bytes.
    pub fn bytes(&self) -> usize {
        self.bits as usize / 8
    }
}

/// A register file.
#[derive(Debug)]
pub struct Layout {
    /// The registers, by number.
    pub entries: Vec<Entry>,
    /// `target.xml`.
    pub xml: String,
    /// The number of the program counter.
    pub pc: usize,
}

/// The order of the general registers in GDB's core feature, as encodings: rax, rbx, rcx, rdx, rsi,
/// rdi, rbp, rsp in 64-bit files, and eax, ecx, edx, ebx, esp, ebp, esi, edi in 32-bit ones.
const ORDER_64: [u8; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const ORDER_32: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// The order of segment registers there: cs, ss, ds, es, fs, gs.
const SEGMENT_ORDER: [u8; 6] = [1, 2, 3, 0, 4, 5];
const FPU: [(Fpu, &str); 8] = [
    (Fpu::Control, "fctrl"),
    (Fpu::Status, "fstat"),
    (Fpu::Tag, "ftag"),
    (Fpu::CodeSegment, "fiseg"),
    (Fpu::CodeOffset, "fioff"),
    (Fpu::DataSegment, "foseg"),
    (Fpu::DataOffset, "fooff"),
    (Fpu::Opcode, "fop"),
];
const SYSTEM_GROUP: Option<&str> = Some("system");

/// The flags of RFLAGS, CR0, CR4, EFER and MXCSR: name and lowest bit, and where a field has more
/// than one, the highest.
type Fields = &'static [(&'static str, u8, u8)];

const EFLAGS: Fields = &[
    ("CF", 0, 0),
    ("", 1, 1),
    ("PF", 2, 2),
    ("AF", 4, 4),
    ("ZF", 6, 6),
    ("SF", 7, 7),
    ("TF", 8, 8),
    ("IF", 9, 9),
    ("DF", 10, 10),
    ("OF", 11, 11),
    ("IOPL", 12, 13),
    ("NT", 14, 14),
    ("RF", 16, 16),
    ("VM", 17, 17),
    ("AC", 18, 18),
    ("VIF", 19, 19),
    ("VIP", 20, 20),
    ("ID", 21, 21),
];
const CR0: Fields = &[
    ("PE", 0, 0),
    ("MP", 1, 1),
    ("EM", 2, 2),
    ("TS", 3, 3),
    ("ET", 4, 4),
    ("NE", 5, 5),
    ("WP", 16, 16),
    ("AM", 18, 18),
    ("NW", 29, 29),
    ("CD", 30, 30),
    ("PG", 31, 31),
];
const CR4: Fields = &[
    ("VME", 0, 0),
    ("PVI", 1, 1),
    ("TSD", 2, 2),
    ("DE", 3, 3),
    ("PSE", 4, 4),
    ("PAE", 5, 5),
    ("MCE", 6, 6),
    ("PGE", 7, 7),
    ("PCE", 8, 8),
    ("OSFXSR", 9, 9),
    ("OSXMMEXCPT", 10, 10),
    ("UMIP", 11, 11),
    ("FSGSBASE", 16, 16),
    ("PCIDE", 17, 17),
    ("OSXSAVE", 18, 18),
    ("SMEP", 20, 20),
    ("SMAP", 21, 21),
];
const EFER: Fields =
    &[("SCE", 0, 0), ("LME", 8, 8), ("LMA", 10, 10), ("NXE", 11, 11), ("FFXSR", 14, 14)];
const MXCSR: Fields = &[
    ("IE", 0, 0),
    ("DE", 1, 1),
    ("ZE", 2, 2),
    ("OE", 3, 3),
    ("UE", 4, 4),
    ("PE", 5, 5),
    ("DAZ", 6, 6),
    ("IM", 7, 7),
    ("DM", 8, 8),
    ("ZM", 9, 9),
    ("OM", 10, 10),
    ("UM", 11, 11),
    ("PM", 12, 12),
    ("RC", 13, 14),
    ("FZ", 15, 15),
];

/// A feature of the description: its name, the types it defines, and its registers.
struct Feature {
    name: &'static str,
    types: String,
    entries: Vec<Entry>,
}

impl Layout {
    /// The file of a processor, with the code that it executes now: that makes a difference only to
    /// what GDB takes instructions for, and only where there is no long mode.
    pub fn of(long_mode: bool, code_bits: u32) -> &'static Layout {
        static LAYOUTS: [OnceLock<Layout>; 3] = [const { OnceLock::new() }; 3];
        let [long, legacy, real] = &LAYOUTS;
        match (long_mode, code_bits) {
            (true, _) => long.get_or_init(|| Layout::new(true, "i386:x86-64")),
            (false, 16) => real.get_or_init(|| Layout::new(false, "i8086")),
            (false, _) => legacy.get_or_init(|| Layout::new(false, "i386")),
        }
    }

    fn new(long: bool, architecture: &str) -> Layout {
        let mut features = vec![core(long), sse(long)];
        features.extend(long.then(segments));
        features.push(system(long));
        // Processors without long mode have no YMM registers.
        features.extend(long.then(avx));
        let mut xml = format!(
            "<?xml version=\"1.0\"?>\n<!DOCTYPE target SYSTEM \"gdb-target.dtd\">\n\
             <target version=\"1.0\">\n<architecture>{architecture}</architecture>\n\
             <osabi>none</osabi>\n"
        );
        let mut entries = Vec::new();
        for feature in features {
            feature.write(&mut xml, entries.len());
            entries.extend(feature.entries);
        }
        xml.push_str("</target>\n");
        let is_pc = |entry: &Entry| entry.register == Register::Pc;
        let pc = entries.iter().position(is_pc).unwrap_or_default();
        Layout { entries, xml, pc }
    }

    /// The size of all registers in bytes.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::bytes).sum()
    }
}

impl Feature {
    fn write(&self, xml: &mut String, first: usize) {
        // Writing to a string cannot fail.
        let _ = writeln!(xml, "<feature name=\"{}\">\n{}", self.name, self.types);
        for (number, entry) in (first..).zip(&self.entries) {
            let Entry { name, bits, kind, group, .. } = entry;
            let _ = write!(
                xml,
                "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\""
            );
            if let Some(group) = group {
                let _ = write!(xml, " group=\"{group}\"");
            }
            xml.push_str("/>\n");
        }
        xml.push_str("</feature>\n");
    }
}

fn flags(id: &str, bytes: u32, fields: Fields) -> String {
    let mut text = format!("<flags id=\"{id}\" size=\"{bytes}\">\n");
    for (name, start, end) in fields {
        let _ = writeln!(text, "<field name=\"{name}\" start=\"{start}\" end=\"{end}\"/>");
    }
    text.push_str("</flags>");
    text
}

fn entry(register: Register, name: impl Into<String>, bits: u32, kind: &'static str) -> Entry {
    Entry { register, name: name.into(), bits, kind, group: None }
}

/// The general registers, segment selectors and the x87 FPU.
fn core(long: bool) -> Feature {
    let (order, bits): (&[u8], u32) = if long { (&ORDER_64, 64) } else { (&ORDER_32, 32) };
    let name = |wide: &str| if long { wide.to_owned() } else { wide.replacen('r', "e", 1) };
    let (integer, data, code) =
        if long { ("int64", "data_ptr", "code_ptr") } else { ("int32", "data_ptr", "code_ptr") };
    let mut entries: Vec<Entry> = order
        .iter()
        .map(|&n| {
            let kind = if matches!(n, 4 | 5) { data } else { integer };
            entry(Register::General(n), name(GENERAL[usize::from(n)]), bits, kind)
        })
        .collect();
    entries.push(entry(Register::Pc, name("rip"), bits, code));
    entries.push(entry(Register::Flags, "eflags", 32, "i386_eflags"));
    entries.extend(
        SEGMENT_ORDER
            .iter()
            .map(|&n| entry(Register::Selector(n), SEGMENTS[usize::from(n)], 32, "int32")),
    );
    entries.extend((0..8).map(|n| entry(Register::St(n), format!("st{n}"), 80, "i387_ext")));
    entries.extend(FPU.iter().map(|(field, name)| Entry {
        group: Some("float"),
        ..entry(Register::Fpu(*field), *name, 32, "int")
    }));
    Feature { name: "org.gnu.gdb.i386.core", types: flags("i386_eflags", 4, EFLAGS), entries }
}

fn sse(long: bool) -> Feature {
    const VECTORS: &str = "<vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>
<vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>
<vector id=\"v16i8\" type=\"int8\" count=\"16\"/>
<vector id=\"v8i16\" type=\"int16\" count=\"8\"/>
<vector id=\"v4i32\" type=\"int32\" count=\"4\"/>
<vector id=\"v2i64\" type=\"int64\" count=\"2\"/>
<union id=\"vec128\">
<field name=\"v4_float\" type=\"v4f\"/>
<field name=\"v2_double\" type=\"v2d\"/>
<field name=\"v16_int8\" type=\"v16i8\"/>
<field name=\"v8_int16\" type=\"v8i16\"/>
<field name=\"v4_int32\" type=\"v4i32\"/>
<field name=\"v2_int64\" type=\"v2i64\"/>
<field name=\"uint128\" type=\"uint128\"/>
</union>
";
    let count = if long { 16 } else { 8 };
    let mut entries: Vec<Entry> =
        (0..count).map(|n| entry(Register::Xmm(n), format!("xmm{n}"), 128, "vec128")).collect();
    entries
        .push(Entry { group: Some("vector"), ..entry(Register::Mxcsr, "mxcsr", 32, "i386_mxcsr") });
    let types = VECTORS.to_owned() + &flags("i386_mxcsr", 4, MXCSR);
    Feature { name: "org.gnu.gdb.i386.sse", types, entries }
}

/// GDB puts the halves together, as `ymm0` and so on.
fn avx() -> Feature {
    let upper = |n| entry(Register::YmmUpper(n), format!("ymm{n}h"), 128, "uint128");
    let entries = (0..16).map(upper).collect();
    Feature { name: "org.gnu.gdb.i386.avx", types: String::new(), entries }
}

fn segments() -> Feature {
    let entries = vec![
        entry(Register::Base(4), "fs_base", 64, "int"),
        entry(Register::Base(5), "gs_base", 64, "int"),
    ];
    Feature { name: "org.gnu.gdb.i386.segments", types: String::new(), entries }
}

/// What GDB has no feature for.
fn system(long: bool) -> Feature {
    let bits = if long { 64 } else { 32 };
    let (pointer, integer) = if long { ("uint64", "uint64") } else { ("uint32", "uint32") };
    let named_elsewhere = |n: &u8| long && *n >= 4;
    let mut entries: Vec<Entry> = SEGMENT_ORDER
        .iter()
        .filter(|n| !named_elsewhere(n))
        .map(|&n| {
            entry(Register::Base(n), format!("{}_base", SEGMENTS[usize::from(n)]), bits, pointer)
        })
        .collect();
    if long {
        entries.push(entry(Register::KernelGsBase, "k_gs_base", 64, pointer));
    }
    entries.extend([
        entry(Register::Cr(0), "cr0", bits, "x86_cr0"),
        entry(Register::Cr(2), "cr2", bits, pointer),
        entry(Register::Cr(3), "cr3", bits, pointer),
        entry(Register::Cr(4), "cr4", bits, "x86_cr4"),
    ]);
    if long {
        entries.push(entry(Register::Cr(8), "cr8", bits, integer));
        entries.push(entry(Register::Efer, "efer", bits, "x86_efer"));
    }
    entries.extend(
        [0, 1, 2, 3, 6, 7].map(|n| entry(Register::Dr(n), format!("dr{n}"), bits, pointer)),
    );
    let table = |table, name, bits, kind| entry(Register::Table(table), name, bits, kind);
    entries.extend([
        table(Table::GdtBase, "gdtr_base", bits, pointer),
        table(Table::GdtLimit, "gdtr_limit", 16, "uint16"),
        table(Table::IdtBase, "idtr_base", bits, pointer),
        table(Table::IdtLimit, "idtr_limit", 16, "uint16"),
        table(Table::Ldt, "ldtr", 16, "uint16"),
        table(Table::LdtBase, "ldtr_base", bits, pointer),
        table(Table::Task, "tr", 16, "uint16"),
        table(Table::TaskBase, "tr_base", bits, pointer),
    ]);
    entries.push(entry(Register::Offset, "ip_offset", bits, pointer));
    entries.push(entry(Register::Cpl, "cpl", 8, "uint8"));
    entries.push(entry(Register::CodeBits, "code_bits", 8, "uint8"));
    for entry in &mut entries {
        entry.group = SYSTEM_GROUP;
    }
    let bytes = bits / 8;
    let mut types = flags("x86_cr0", bytes, CR0) + &flags("x86_cr4", bytes, CR4);
    if long {
        types += &flags("x86_efer", bytes, EFER);
    }
    Feature { name: "org.brolga.x86.system", types, entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_numbers_follow_the_order() {
        for long in [false, true] {
            let layout = Layout::of(long, 32);
            let mut names: Vec<&str> = layout.entries.iter().map(|e| e.name.as_str()).collect();
            names.sort_unstable();
            let count = names.len();
            names.dedup();
            assert_eq!(names.len(), count);
            for (number, entry) in layout.entries.iter().enumerate() {
                let place = format!("<reg name=\"{}\" bitsize=\"{}\"", entry.name, entry.bits);
                assert!(layout.xml.contains(&place), "{place}");
                assert!(layout.xml.contains(&format!("regnum=\"{number}\"")));
            }
        }
    }

    #[test]
    fn the_core_feature_is_numbered_as_gdb_does() {
        let long = Layout::of(true, 64);
        let number =
            |layout: &Layout, name: &str| layout.entries.iter().position(|e| e.name == name);
        assert_eq!(number(long, "rip"), Some(16));
        assert_eq!(number(long, "st0"), Some(24));
        assert_eq!(number(long, "xmm0"), Some(40));
        assert_eq!(number(long, "mxcsr"), Some(56));
        let legacy = Layout::of(false, 32);
        assert_eq!(number(legacy, "esp"), Some(4));
        assert_eq!(number(legacy, "eip"), Some(8));
        assert_eq!(number(legacy, "st0"), Some(16));
        assert_eq!(number(legacy, "xmm0"), Some(32));
        assert_eq!(number(legacy, "efer"), None);
    }

    #[test]
    fn without_long_mode_16_bit_code_is_announced() {
        assert!(Layout::of(false, 16).xml.contains("<architecture>i8086<"));
        assert!(Layout::of(false, 32).xml.contains("<architecture>i386<"));
        assert!(Layout::of(true, 16).xml.contains("<architecture>i386:x86-64<"));
    }
}
