//! State as named values, to show where two states differ.

use std::fmt::{self, Display, Formatter};

use brolga_cpu::vcpu::{RIP, SegReg, Vcpu};
use serde::Serialize;
use serde_json::Value;

/// The general registers in encoding order.
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// A named value.
pub type Field = (String, String);

/// A value before an instruction, and after it in either engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// The value before.
    pub before: String,
    /// The values after.
    pub after: [String; 2],
}

impl Row {
    /// Whether the engines differ.
    pub fn differs(&self) -> bool {
        self.after[0] != self.after[1]
    }

    fn changed(&self) -> bool {
        self.differs() || self.after[0] != self.before
    }
}

/// The values of `after` beside those of `before`: those that a reader always wants, and of the
/// others those that have changed.
pub fn rows(before: &[Field], after: [&[Field]; 2]) -> Vec<Row> {
    let always = |name: &str| GENERAL.contains(&name) || matches!(name, "rip" | "rflags");
    // The lists of one kind of state have the same names in the same order, except where the
    // length of a queue differs: then what comes behind is looked for.
    let value = |list: &[Field], at: usize, name: &str| {
        let here = list.get(at).filter(|field| field.0 == name);
        here.or_else(|| list.iter().find(|field| field.0 == name))
            .map_or_else(|| "-".to_owned(), |field| field.1.clone())
    };
    let longest = [before, after[0], after[1]].into_iter().max_by_key(|list| list.len());
    let names = longest.into_iter().flatten().map(|field| field.0.clone()).enumerate();
    names
        .map(|(at, name)| Row {
            before: value(before, at, &name),
            after: after.map(|list| value(list, at, &name)),
            name,
        })
        .filter(|row| always(&row.name) || row.changed())
        .collect()
}

/// The state of a vCPU, as architecture has it.
pub fn of_vcpu(vcpu: &Vcpu) -> Vec<Field> {
    let general = GENERAL.iter().zip(vcpu.regs);
    let mut fields: Vec<Field> =
        general.map(|(name, value)| (name.to_string(), format!("{value:016x}"))).collect();
    fields.push(("rip".into(), format!("{:016x}", vcpu.regs[usize::from(RIP)])));
    fields.push(("rflags".into(), format!("{:016x}", vcpu.rflags())));
    for reg in SegReg::ALL {
        let segment = vcpu.seg(reg);
        let value = format!(
            "{:04x} base {:x} limit {:x} attr {:x}",
            segment.selector, segment.base, segment.limit, segment.attr
        );
        fields.push((format!("{reg:?}").to_lowercase(), value));
    }
    for (n, value) in vcpu.xmm.iter().enumerate() {
        fields.push((format!("xmm{n}"), format!("{value:032x}")));
    }
    for (n, value) in vcpu.ymm_high.iter().enumerate() {
        fields.push((format!("ymm{n}.high"), format!("{value:032x}")));
    }
    // What is shown above is left out; 128-bit numbers are more than JSON values hold.
    let mut rest = of_any(&Vcpu { xmm: [0; 16], ymm_high: [0; 16], ..vcpu.clone() });
    let shown = ["regs", "flags", "eflags", "segs", "xmm", "ymm_high"];
    rest.retain(|(name, _)| !shown.contains(&name.split(['.', '[']).next().unwrap_or_default()));
    fields.extend(rest);
    fields
}

/// Any plain data.
pub fn of_any(state: &impl Serialize) -> Vec<Field> {
    let mut fields = Vec::new();
    match serde_json::to_value(state) {
        Ok(value) => flatten(String::new(), &value, &mut fields),
        Err(error) => fields.push(("state".into(), error.to_string())),
    }
    fields
}

fn flatten(name: String, value: &Value, fields: &mut Vec<Field>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                let dot = if name.is_empty() { "" } else { "." };
                flatten(format!("{name}{dot}{member}"), value, fields);
            }
        }
        Value::Array(elements) => {
            for (n, element) in elements.iter().enumerate() {
                flatten(format!("{name}[{n}]"), element, fields);
            }
        }
        Value::Number(number) => {
            let hexadecimal = number.as_u64().map(|number| format!("{number:x}"));
            fields.push((name, hexadecimal.unwrap_or_else(|| number.to_string())));
        }
        Value::String(text) => fields.push((name, text.clone())),
        Value::Null | Value::Bool(_) => fields.push((name, value.to_string())),
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, before, after: [first, second] } = self;
        let mark = if self.differs() { '>' } else { ' ' };
        write!(f, "{mark} {name:<12} {before:<32} {first:<32} {second}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_cpu::vcpu::gpr;

    #[test]
    fn every_kind_of_state_has_a_name() {
        let before = Vcpu::new(0);
        let mut after = before.clone();
        after.regs[usize::from(gpr::RBX)] = 5;
        after.xmm[3] = u128::MAX;
        after.ymm_high[4] = 1;
        after.sys.mtrr_fixed[2] = 0x10;
        after.cpl = 3;
        after.segs[SegReg::Fs as usize].base = 0x1000;
        let (old, new) = (of_vcpu(&before), of_vcpu(&after));
        let rows = rows(&old, [&new, &old]);
        let differing: Vec<&str> =
            rows.iter().filter(|row| row.differs()).map(|row| row.name.as_str()).collect();
        assert_eq!(differing, ["rbx", "fs", "xmm3", "ymm4.high", "cpl", "sys.mtrr_fixed[2]"]);
        assert!(rows.iter().any(|row| row.name == "rax" && !row.differs()));
        assert!(!rows.iter().any(|row| row.name == "xmm4"));
    }
}
