//! How a guest tells what came of its tests, where it does so in none of the common ways.
//!
//! A file beside the guest (`test.rom.conform`) says it in the words of the command line, one
//! setting a line; a [preset](PRESETS) says it for a test that is known by name.

use std::path::PathBuf;

/// How a guest reports, besides lines on the serial line and the exit port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reporting {
    /// A port for codes of progress, such as 80h or 190h.
    pub post_port: Option<u16>,
    /// The code that says that all has passed.
    pub post_pass: Option<u8>,
    /// A port for text.
    pub ascii_port: Option<u16>,
    /// What the text must be, line by line: that of the port, or of the serial line.
    pub reference: Option<PathBuf>,
    /// The physical address of a 32-bit result, which is not 0 when the guest is done.
    pub result_at: Option<u64>,
    /// The result that says that all has passed.
    pub result_pass: Option<u32>,
}

/// The code that says that all has passed, unless another is named.
pub const POST_PASS: u8 = 0xff;
/// The result in memory that says so.
pub const RESULT_PASS: u32 = 1;

/// A test that many run, by the beginning of its file's name.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// How it reports, in the words of a file beside it.
    pub settings: &'static str,
    /// What is to be known about it.
    pub about: &'static str,
}

/// The tests that are known.
pub const PRESETS: &[Preset] = &[Preset {
    name: "test386",
    settings: "post-port = 0x190\npost-pass = 0xff\nascii-port = 0xe9",
    about: "test386.asm as it is configured, with OUT_PORT 0xe9 for the text that --reference \
            compares",
}];

impl Reporting {
    /// The preset of this name.
    pub fn preset(name: &str) -> Option<Self> {
        let preset = PRESETS.iter().find(|preset| preset.name == name)?;
        Self::parse(preset.settings).ok()
    }

    /// What a file's name says.
    pub fn by_file_name(name: &str) -> Self {
        let preset = PRESETS.iter().find(|preset| name.starts_with(preset.name));
        preset.and_then(|preset| Self::preset(preset.name)).unwrap_or_default()
    }

    /// Reads settings, one `name = value` a line; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reporting = Self::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                reporting.set(line)?;
            }
        }
        Ok(reporting)
    }

    fn set(&mut self, line: &str) -> Result<(), String> {
        let (name, value) = line
            .split_once('=')
            .map(|(name, value)| (name.trim(), value.trim()))
            .ok_or_else(|| format!("{line:?} is not of the form `name = value`"))?;
        let number = |most| number(value).and_then(|n| within(n, most));
        match name {
            "post-port" => self.post_port = Some(number(0xffff)? as u16),
            "post-pass" => self.post_pass = Some(number(0xff)? as u8),
            "ascii-port" => self.ascii_port = Some(number(0xffff)? as u16),
            "reference" => self.reference = Some(value.into()),
            "result-at" => self.result_at = Some(number(u64::MAX)?),
            "result-pass" => self.result_pass = Some(number(u32::MAX.into())? as u32),
            _ => return Err(format!("there is no setting {name:?}")),
        }
        Ok(())
    }

    /// What this leaves open is as in `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            post_port: self.post_port.or(other.post_port),
            post_pass: self.post_pass.or(other.post_pass),
            ascii_port: self.ascii_port.or(other.ascii_port),
            reference: self.reference.or(other.reference),
            result_at: self.result_at.or(other.result_at),
            result_pass: self.result_pass.or(other.result_pass),
        }
    }
}

/// A number, in hexadecimal after 0x.
pub fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text:?} is not a number"))
}

fn within(number: u64, most: u64) -> Result<u64, String> {
    if number <= most { Ok(number) } else { Err(format!("{number:#x} is more than {most:#x}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_settings() {
        for preset in PRESETS {
            assert!(Reporting::parse(preset.settings).is_ok(), "{}", preset.name);
        }
        let known = Reporting::by_file_name("test386.bin");
        assert_eq!((known.post_port, known.post_pass), (Some(0x190), Some(0xff)));
        assert_eq!(Reporting::by_file_name("other.bin"), Reporting::default());
    }

    #[test]
    fn settings_have_names_numbers_and_bounds() {
        let text = "# a test\npost-port = 0x80 # the usual\n\nresult-pass=7";
        let reporting = Reporting::parse(text).expect("right settings");
        assert_eq!((reporting.post_port, reporting.result_pass), (Some(0x80), Some(7)));
        for wrong in ["post-port", "post-port = x", "post-port = 0x10000", "port = 1"] {
            assert!(Reporting::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_said_first_counts() {
        let said = Reporting { post_port: Some(1), ..Reporting::default() };
        let both =
            said.or(Reporting { post_port: Some(2), post_pass: Some(3), ..Default::default() });
        assert_eq!((both.post_port, both.post_pass), (Some(1), Some(3)));
    }
}
