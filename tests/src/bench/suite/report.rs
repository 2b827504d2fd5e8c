//! The results as a table with bars, and as JSON.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value, json};

use super::Clock;
use super::results::{Cell, Measured, Results};
use super::rows::Group;
use crate::table;

/// How a bar looks at the rows of its group.
enum Over {
    Mean,
    EveryRow,
}

/// How many times faster than TCG Brolga is meant to be.
struct Bar {
    what: &'static str,
    group: Group,
    over: Over,
    times: f64,
}

const BARS: [Bar; 8] = [
    Bar { what: "compute, mean", group: Group::Compute, over: Over::Mean, times: 4.0 },
    Bar { what: "compute, every row", group: Group::Compute, over: Over::EveryRow, times: 1.5 },
    Bar { what: "scalar FP, mean", group: Group::ScalarFp, over: Over::Mean, times: 6.0 },
    Bar { what: "packed FP, mean", group: Group::PackedFp, over: Over::Mean, times: 10.0 },
    Bar { what: "x87, every row", group: Group::X87, over: Over::EveryRow, times: 1.0 },
    Bar { what: "string, mean", group: Group::String, over: Over::Mean, times: 10.0 },
    Bar { what: "system, every row", group: Group::System, over: Over::EveryRow, times: 1.5 },
    Bar { what: "boot, every row", group: Group::Boot, over: Over::EveryRow, times: 1.0 },
];

/// How much memory an engine may take beside guest RAM, in MiB.
const BEYOND_RAM: f64 = 300.0;

impl Display for Results {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let clock = match self.clock {
            Clock::Wall => "the host's clock",
            Clock::Cpu => "what the processes use of the host's processors",
        };
        writeln!(formatter, "medians by {clock}, in ms; x: times faster than tcg")?;
        writeln!(
            formatter,
            "host insns, bytes: of translated code per guest instruction, all ways"
        )?;
        writeln!(formatter, "{}\n", self.rows_table())?;
        writeln!(formatter, "geometric means of x\n{}\n", self.means_table())?;
        write!(formatter, "bars\n{}", self.bars_table())
    }
}

impl Results {
    fn rows_table(&self) -> comfy_table::Table {
        let mut header: Vec<_> = ["row", "group", "native"].map(String::from).to_vec();
        header.extend(self.engines.iter().map(ToString::to_string));
        header.extend(self.brolga().map(|index| format!("{} x", self.engines[index])));
        header.extend(["M insns", "host insns", "bytes"].map(String::from));
        let mut table = table::new(header);
        for measured in &self.rows {
            let mut cells = vec![measured.row.name.into(), measured.row.group.name().into()];
            let times = [&measured.native].into_iter().chain(&measured.engines);
            cells.extend(times.map(|cell| decimal(cell.median(self.clock), 1)));
            cells.extend(self.brolga().map(|index| decimal(self.faster(measured, index), 2)));
            cells.push(decimal(measured.instructions.map(|count| count / 1e6), 1));
            cells.push(decimal(measured.code.insns(), 1));
            cells.push(decimal(measured.code.bytes(), 0));
            table.add_row(cells);
        }
        table
    }

    fn means_table(&self) -> comfy_table::Table {
        let names = self.brolga().map(|index| self.engines[index].to_string());
        let mut table = table::new([String::from("group")].into_iter().chain(names));
        for group in Group::ALL.into_iter().filter(|group| self.measured(*group)) {
            let means = self.brolga().map(|index| decimal(self.mean(group, index), 2));
            table.add_row([String::from(group.name())].into_iter().chain(means));
        }
        table
    }

    fn bars_table(&self) -> comfy_table::Table {
        let names = self.brolga().map(|index| self.engines[index].to_string());
        let columns = ["bar", "asked"].map(String::from).into_iter();
        let mut table = table::new(columns.chain(names));
        for bar in BARS.iter().filter(|bar| self.measured(bar.group)) {
            let verdicts = self.brolga().map(|index| self.verdict(bar, index));
            let cells = [bar.what.into(), format!("{} x", bar.times)].into_iter();
            table.add_row(cells.chain(verdicts));
        }
        let memory = self.brolga().map(|index| {
            let taken = self.beyond_ram[index];
            taken.map_or("-".into(), |t| format!("{} ({t:.0} MiB)", met(t <= BEYOND_RAM)))
        });
        let cells = ["memory beyond guest RAM".into(), format!("{BEYOND_RAM} MiB")].into_iter();
        table.add_row(cells.chain(memory));
        table
    }

    fn measured(&self, group: Group) -> bool {
        self.rows.iter().any(|measured| measured.row.group == group)
    }

    /// The geometric mean of how many times faster than TCG an engine is.
    fn mean(&self, group: Group, engine: usize) -> Option<f64> {
        let logarithms: Vec<_> =
            self.factors(group, engine).into_iter().map(|(_, factor)| factor.ln()).collect();
        let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        (!logarithms.is_empty()).then(|| mean.exp())
    }

    fn factors(&self, group: Group, engine: usize) -> Vec<(&'static str, f64)> {
        let own = self.rows.iter().filter(|measured| measured.row.group == group);
        own.filter_map(|m| Some((m.row.name, self.faster(m, engine)?))).collect()
    }

    fn verdict(&self, bar: &Bar, engine: usize) -> String {
        let times = bar.times;
        match bar.over {
            Over::Mean => self
                .mean(bar.group, engine)
                .map_or("-".into(), |mean| format!("{} ({mean:.2} x)", met(mean >= times))),
            Over::EveryRow => {
                let factors = self.factors(bar.group, engine);
                let below = factors.iter().filter(|(_, factor)| *factor < times).count();
                let least = factors.iter().min_by(|(_, a), (_, b)| a.total_cmp(b));
                least.map_or("-".into(), |(row, factor)| match below {
                    0 => format!("met ({row} {factor:.2} x)"),
                    _ => format!("not met ({below} of {}; {row} {factor:.2} x)", factors.len()),
                })
            }
        }
    }

    /// All figures, in milliseconds and MiB.
    pub fn json(&self) -> Value {
        let row = |measured: &Measured| {
            let engines = self.engines.iter().zip(&measured.engines);
            let engines: serde_json::Map<_, _> =
                engines.map(|(engine, cell)| (engine.to_string(), cell.json())).collect();
            json!({
                "row": measured.row.name,
                "group": measured.row.group.name(),
                "instructions": measured.instructions,
                "host_insns_per_insn": measured.code.insns(),
                "host_bytes_per_insn": measured.code.bytes(),
                "native": measured.native.json(),
                "engines": engines,
            })
        };
        let memory = self.engines.iter().zip(&self.beyond_ram);
        let memory: serde_json::Map<_, _> =
            memory.map(|(engine, mebibytes)| (engine.to_string(), json!(mebibytes))).collect();
        let bars = BARS.iter().map(|bar| {
            let verdicts: serde_json::Map<_, _> = self
                .brolga()
                .map(|index| (self.engines[index].to_string(), self.verdict(bar, index).into()))
                .collect();
            json!({ "bar": bar.what, "times": bar.times, "engines": verdicts })
        });
        json!({
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
            "bars": bars.collect::<Vec<_>>(),
            "beyond_ram_mib": memory,
            "wrong": self.wrong(),
        })
    }
}

impl Cell {
    fn json(&self) -> Value {
        let sums: Vec<_> = self.sums.iter().map(|sum| format!("{sum:016x}")).collect();
        json!({
            "wall_ms": self.median(Clock::Wall),
            "cpu_ms": self.median(Clock::Cpu),
            "guest_ms": self.guest_median(),
            "wall_ms_by_round": self.rounds(Clock::Wall),
            "cpu_ms_by_round": self.rounds(Clock::Cpu),
            "sums": sums,
        })
    }
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "not met" }
}

fn decimal(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::super::rows::ROWS;
    use std::time::Duration;

    use super::*;
    use crate::bench::engine::Engine;
    use crate::bench::times::Times;

    /// Two compute rows in which TCG takes 8 ms and Brolga 1 and 4.
    fn results() -> Results {
        let engines = vec![Engine::Tcg, Engine::Brolga("jit".into())];
        let mut results = Results::new(&ROWS[..2], engines, Clock::Wall);
        let times = |wall| vec![Times { wall: Duration::from_millis(wall), ..Times::default() }];
        for (measured, brolga) in results.rows.iter_mut().zip([1, 4]) {
            measured.engines[0].host = times(8);
            measured.engines[1].host = times(brolga);
        }
        results
    }

    #[test]
    fn means_are_geometric() {
        let mean = results().mean(Group::Compute, 1).unwrap();
        assert!((mean - 4.0).abs() < 1e-9, "{mean}");
        assert_eq!(results().mean(Group::System, 1), None);
    }

    #[test]
    fn bars_name_the_slowest_row() {
        let bar = |over, times| Bar { what: "", group: Group::Compute, over, times };
        let verdict = |bar| results().verdict(&bar, 1);
        let worst = ROWS[1].name;
        assert_eq!(verdict(bar(Over::EveryRow, 1.5)), format!("met ({worst} 2.00 x)"));
        let not_met = format!("not met (1 of 2; {worst} 2.00 x)");
        assert_eq!(verdict(bar(Over::EveryRow, 3.0)), not_met);
        assert_eq!(verdict(bar(Over::Mean, 5.0)), "not met (4.00 x)");
    }
}
