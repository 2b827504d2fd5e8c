//! The report as text.

use std::fmt::{self, Display, Formatter};

use super::{Cause, CrashReport};

/// The width of a heading's rule.
const WIDTH: usize = 78;

impl Display for CrashReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if !self.chain.is_empty() {
            heading(f, "what happened")?;
            for (number, cause) in self.chain.iter().enumerate() {
                writeln!(f, "{:>2}. {cause}", number + 1)?;
            }
        }
        heading(f, "registers")?;
        writeln!(f, "{}", self.registers)?;
        heading(f, "code at cs:rip")?;
        self.write_code(f)?;
        for walk in &self.walks {
            heading(f, &format!("page walk of {:#x}", walk.linear))?;
            for step in &walk.steps {
                writeln!(f, "    {step}")?;
            }
        }
        if !self.transfers.is_empty() {
            heading(f, "last control transfers (instruction count, from, to)")?;
            for transfer in &self.transfers {
                writeln!(f, "{:>16}  {:016x} -> {:016x}", transfer.at, transfer.from, transfer.to)?;
            }
            if !self.transfers_complete {
                writeln!(
                    f,
                    "those inside translated code are missing: --accel interp has them all"
                )?;
            }
        }
        heading(f, &format!("after {} instructions", self.instructions))
    }
}

impl CrashReport {
    fn write_code(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.code.is_empty() {
            return writeln!(f, "    cannot be read");
        }
        for (number, line) in self.code.iter().enumerate() {
            let mark = if number == 0 { ">" } else { " " };
            writeln!(f, "  {mark} {:016x}  {:<24} {}", line.ip, line.bytes, line.text)?;
        }
        Ok(())
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let link = &self.link;
        match self.name {
            "interrupt" => write!(f, "interrupt {:#04x}", link.vector)?,
            name => f.write_str(name)?,
        }
        if let Some(error) = link.error {
            write!(f, " (error code {error:#x})")?;
        }
        if let Some(address) = link.address {
            write!(f, " for address {address:#x}")?;
        }
        write!(f, " at {:04x}:{:x}: {}", link.cs, link.rip, link.why)
    }
}

fn heading(f: &mut Formatter<'_>, title: &str) -> fmt::Result {
    let rule = "-".repeat(WIDTH.saturating_sub(title.len() + 4));
    writeln!(f, "-- {title} {rule}")
}
