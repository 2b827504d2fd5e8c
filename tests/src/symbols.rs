//! A kernel's symbols, recovered from its own `/proc/kallsyms`, in a file that debuggers read.

use anyhow::{Context, Result};

/// A symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Its name.
    pub name: String,
    /// Its address.
    pub at: u64,
    /// Code, rather than data.
    pub code: bool,
}

/// The symbols in lines of `/proc/kallsyms`: address, type, name.
pub fn parse(lines: &str) -> Result<Vec<Symbol>> {
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut word = || words.next().with_context(|| format!("no symbol: {line:?}"));
            let at = u64::from_str_radix(word()?, 16).with_context(|| format!("{line:?}"))?;
            let code = word()?.eq_ignore_ascii_case("t");
            Ok(Symbol { name: word()?.to_owned(), at, code })
        })
        .collect()
}

/// Sections of the file, in the order of their headers.
const NAMES: &[u8] = b"\0.text\0.data\0.symtab\0.strtab\0";
const TEXT: u16 = 1;
const DATA: u16 = 2;
const STRINGS: u32 = 4;
const SECTIONS: u16 = 5;

/// Where the fields of a class of ELF files differ (System V ABI, chapter 4).
#[derive(Clone, Copy)]
struct Class {
    wide: bool,
}

impl Class {
    /// An address, an offset, or a size.
    fn word(self, to: &mut Vec<u8>, value: u64) {
        let bytes = if self.wide { 8 } else { 4 };
        to.extend_from_slice(&value.to_le_bytes()[..bytes]);
    }

    fn header_bytes(self) -> u64 {
        if self.wide { 64 } else { 52 }
    }

    fn section_bytes(self) -> u16 {
        if self.wide { 64 } else { 40 }
    }

    fn symbol_bytes(self) -> u64 {
        if self.wide { 24 } else { 16 }
    }

    /// The header of a section: name, type, flags, address, offset, size, link, information and
    /// size of an entry.
    fn section(self, to: &mut Vec<u8>, fields: [u64; 9]) {
        let [name, kind, flags, at, offset, size, link, info, entry] = fields;
        to.extend((name as u32).to_le_bytes());
        to.extend((kind as u32).to_le_bytes());
        for value in [flags, at, offset, size] {
            self.word(to, value);
        }
        to.extend((link as u32).to_le_bytes());
        to.extend((info as u32).to_le_bytes());
        self.word(to, 8);
        self.word(to, entry);
    }

    fn symbol(self, to: &mut Vec<u8>, name: u32, at: u64, kind: u8, section: u16) {
        const GLOBAL: u8 = 1 << 4;
        let info = if section == 0 { 0 } else { GLOBAL | kind };
        to.extend(name.to_le_bytes());
        if self.wide {
            to.extend([info, 0]);
            to.extend(section.to_le_bytes());
            self.word(to, at);
            self.word(to, 0);
        } else {
            self.word(to, at);
            self.word(to, 0);
            to.extend([info, 0]);
            to.extend(section.to_le_bytes());
        }
    }
}

/// An executable in ELF that has nothing but symbols.
pub fn elf(symbols: &[Symbol], wide: bool) -> Vec<u8> {
    const FUNCTION: u8 = 2;
    const OBJECT: u8 = 1;
    let class = Class { wide };
    let (mut table, mut strings) = (Vec::new(), NAMES.to_vec());
    class.symbol(&mut table, 0, 0, 0, 0);
    for symbol in symbols {
        let (kind, section) = if symbol.code { (FUNCTION, TEXT) } else { (OBJECT, DATA) };
        class.symbol(&mut table, strings.len() as u32, symbol.at, kind, section);
        strings.extend(symbol.name.bytes().chain([0]));
    }
    // The names of sections and of symbols are one table.
    let strings_at = class.header_bytes();
    let table_at = strings_at + strings.len() as u64;
    let sections_at = table_at + table.len() as u64;
    let mut file = header(class, sections_at);
    file.extend(&strings);
    file.extend(&table);
    class.section(&mut file, [0; 9]);
    for (name, code, flags) in [(1, true, 6), (7, false, 3)] {
        let (at, size) = extent(symbols, code);
        const NOBITS: u64 = 8;
        class.section(&mut file, [name, NOBITS, flags, at, 0, size, 0, 0, 0]);
    }
    let entry = class.symbol_bytes();
    let table_fields = [13, 2, 0, 0, table_at, table.len() as u64, STRINGS.into(), 1, entry];
    class.section(&mut file, table_fields);
    class.section(&mut file, [21, 3, 0, 0, strings_at, strings.len() as u64, 0, 0, 0]);
    file
}

/// The first address of the symbols of a kind, and the bytes up to behind the last.
fn extent(symbols: &[Symbol], code: bool) -> (u64, u64) {
    let of_kind = || symbols.iter().filter(move |s| s.code == code).map(|s| s.at);
    let first = of_kind().min().unwrap_or_default();
    (first, of_kind().max().unwrap_or_default() - first + 0x1000)
}

fn header(class: Class, sections_at: u64) -> Vec<u8> {
    const EXECUTABLE: u16 = 2;
    const X86_64: u16 = 62;
    const I386: u16 = 3;
    let mut file = vec![0x7f, b'E', b'L', b'F', if class.wide { 2 } else { 1 }, 1, 1];
    file.resize(16, 0);
    file.extend(EXECUTABLE.to_le_bytes());
    file.extend(if class.wide { X86_64 } else { I386 }.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for value in [0, 0, sections_at] {
        class.word(&mut file, value);
    }
    file.extend([0; 4]);
    let names = STRINGS as u16;
    let sizes = [class.header_bytes() as u16, 0, 0, class.section_bytes(), SECTIONS, names];
    sizes.iter().for_each(|size| file.extend(size.to_le_bytes()));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_symbols() -> Result<()> {
        let symbols = parse("ffffffff81000000 T _text\nffffffff82000000 D jiffies\n\n")?;
        assert_eq!(symbols.len(), 2);
        assert!(symbols[0].code && !symbols[1].code);
        assert_eq!((symbols[1].at, symbols[1].name.as_str()), (0xffff_ffff_8200_0000, "jiffies"));
        assert!(parse("nothing of the kind").is_err());
        Ok(())
    }
}
