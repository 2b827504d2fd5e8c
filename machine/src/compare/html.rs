//! A report as one HTML file with a chart, for light and dark screens. It refers to nothing
//! outside itself and holds no script.

use std::fmt::{self, Write};

use super::print::{duration, kinds, percent, ratio, remarks};
use super::report::{Cell, KvmKind, Report, Row, Time};
use crate::conform::print::escape;

const STYLE: &str = include_str!("report.css");

/// Of the chart, in its own units.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 36.0;
const TOP: f64 = 34.0;
const LINE: f64 = 28.0;
/// Dots of engines lie so far below each other.
const LANE: f64 = 6.0;

/// Times shorter than this are drawn at the left edge, in nanoseconds.
const SHORTEST: f64 = 0.1;
/// Colours that the style has for engines.
const COLOURS: usize = 6;

/// The report as a page.
pub fn page(report: &Report) -> String {
    let mut page = String::new();
    let _ = write_page(&mut page, report);
    page
}

fn write_page(to: &mut String, report: &Report) -> fmt::Result {
    let guest = escape(&report.guest);
    write!(
        to,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>brolga compare: {guest}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <header><p class=\"kicker\">brolga compare</p>\n<h1>What an operation takes</h1>\n\
         <p class=\"host\">{guest}, on {}</p></header>\n",
        escape(&report.host.describe())
    )?;
    write_kvm(to, report)?;
    write_cards(to, report)?;
    write_chart(to, report)?;
    write_table(to, report)?;
    write_counts(to, report)?;
    writeln!(to, "<footer>")?;
    for remark in remarks(report) {
        writeln!(to, "<p>{}</p>", escape(&remark))?;
    }
    writeln!(to, "</footer>\n</main>\n</body>\n</html>")
}

/// What KVM is here, where it is not what one would think.
fn write_kvm(to: &mut String, report: &Report) -> fmt::Result {
    let title = match report.kvm.kind {
        KvmKind::Missing => "There is no KVM in these figures",
        KvmKind::Emulating => "KVM emulates on this host",
        KvmKind::Doubtful => "KVM may emulate on this host",
        KvmKind::Hardware | KvmKind::NotAsked => return Ok(()),
    };
    let words = escape(&report.kvm.words);
    writeln!(to, "<aside><strong>{title}.</strong> {words}</aside>")
}

/// A card for each engine: its figures in one.
fn write_cards(to: &mut String, report: &Report) -> fmt::Result {
    writeln!(to, "<section class=\"cards\">")?;
    for (engine, column) in report.engines.iter().enumerate() {
        let base = report.reference.map_or("", |at| report.engines[at].name.as_str());
        let (figure, about) = match (column.mean_ratio, &column.problem) {
            (_, Some(problem)) => ("&ndash;".to_owned(), escape(problem)),
            _ if Some(engine) == report.reference => {
                ("1x".to_owned(), "what the others are compared with".to_owned())
            }
            (Some(mean), None) => {
                (ratio(mean), format!("the time of {}, geometric mean", escape(base)))
            }
            (None, None) => ("&ndash;".to_owned(), "no figures".to_owned()),
        };
        let (name, colour) = (escape(&column.name), colour(engine));
        writeln!(
            to,
            "<div class=\"card {colour}\"><h2>{name}</h2><p class=\"figure\">{figure}</p>\
             <p>{about}</p></div>"
        )?;
    }
    writeln!(to, "</section>")
}

fn colour(engine: usize) -> String {
    format!("engine-{}", engine % COLOURS)
}

/// The decades that all times lie in.
struct Scale {
    first: i32,
    last: i32,
}

impl Scale {
    fn of(report: &Report) -> Option<Self> {
        let cells = report.rows.iter().flat_map(|row| &row.cells);
        let times = cells.filter_map(|cell| cell.time).flat_map(|time| time.quartiles_ns);
        let decades = times.map(|ns| ns.max(SHORTEST).log10());
        let (low, high) =
            decades.fold((f64::MAX, f64::MIN), |(low, high), d| (low.min(d), high.max(d)));
        (low <= high).then(|| {
            let first = low.floor() as i32;
            Self { first, last: (high.ceil() as i32).max(first + 1) }
        })
    }

    fn x(&self, ns: f64) -> f64 {
        let part =
            (ns.max(SHORTEST).log10() - f64::from(self.first)) / f64::from(self.last - self.first);
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

/// A line for each row, quickest first, with a dot for each engine.
fn write_chart(to: &mut String, report: &Report) -> fmt::Result {
    let Some(scale) = Scale::of(report) else { return Ok(()) };
    let mut rows: Vec<&Row> = report.rows.iter().collect();
    let by = report.reference.unwrap_or(0);
    let key = |row: &Row| row.cells[by].time.map_or(f64::MAX, |time| time.median_ns);
    rows.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let height = TOP + LINE * rows.len() as f64 + 8.0;
    writeln!(
        to,
        "<section><h2>From the quickest to the slowest</h2>\n<p class=\"hint\">Logarithmic: each line to \
         the right is ten times slower. Bars through the dots join the quartiles.</p>"
    )?;
    write_legend(to, report)?;
    writeln!(
        to,
        "<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Host time of one operation by engine\">"
    )?;
    for decade in scale.first..=scale.last {
        let ns = 10f64.powi(decade);
        let (x, bottom) = (scale.x(ns), height - 8.0);
        let label = decade_label(ns);
        writeln!(
            to,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
             <text class=\"axis\" x=\"{x:.1}\" y=\"20\">{label}</text>"
        )?;
    }
    for (line, row) in rows.iter().enumerate() {
        write_line(to, report, row, &scale, TOP + LINE * (line as f64 + 0.5))?;
    }
    writeln!(to, "</svg></div></section>")
}

fn decade_label(ns: f64) -> String {
    let text = if ns < 1.0 { format!("{ns} ns") } else { duration(ns) };
    text.replace(".00 ", " ").replace(".0 ", " ").replace("us", "\u{b5}s")
}

fn write_legend(to: &mut String, report: &Report) -> fmt::Result {
    write!(to, "<p class=\"legend\">")?;
    for (engine, column) in report.measured() {
        write!(to, "<span class=\"{}\">{}</span> ", colour(engine), escape(&column.name))?;
    }
    writeln!(to, "</p>")
}

fn write_line(to: &mut String, report: &Report, row: &Row, scale: &Scale, y: f64) -> fmt::Result {
    let (name, about) = (escape(&row.name), escape(&row.about));
    let label = LEFT - 14.0;
    writeln!(
        to,
        "<g><title>{about}</title><text class=\"row\" x=\"{label}\" y=\"{:.1}\">{name}</text>",
        y + 4.5
    )?;
    let medians = row.cells.iter().filter_map(|cell| Some(scale.x(cell.time?.median_ns)));
    let (low, high) = medians.fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    if low < high {
        writeln!(
            to,
            "<line class=\"span\" x1=\"{low:.1}\" x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
        )?;
    }
    writeln!(to, "</g>")?;
    let lanes: Vec<usize> = report.measured().map(|(engine, _)| engine).collect();
    for (lane, &engine) in lanes.iter().enumerate() {
        let cell = &row.cells[engine];
        if let Some(time) = &cell.time {
            let name = format!("{}, {}", row.name, report.engines[engine].name);
            let y = y + LANE * (lane as f64 - (lanes.len() - 1) as f64 / 2.0);
            write_dot(to, time, scale, y, engine, &format!("{name}: {}", describe(cell)))?;
        }
    }
    Ok(())
}

fn write_dot(
    to: &mut String,
    time: &Time,
    scale: &Scale,
    y: f64,
    engine: usize,
    title: &str,
) -> fmt::Result {
    let [low, high] = time.quartiles_ns.map(|ns| scale.x(ns));
    let (x, colour, title) = (scale.x(time.median_ns), colour(engine), escape(title));
    writeln!(
        to,
        "<g class=\"{colour}\"><title>{title}</title><line class=\"quartiles\" x1=\"{low:.1}\" \
         x2=\"{high:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><circle cx=\"{x:.1}\" cy=\"{y:.1}\" \
         r=\"5\"/></g>"
    )
}

/// A cell in words.
fn describe(cell: &Cell) -> String {
    let Some(time) = &cell.time else { return cell.failure.clone().unwrap_or_default() };
    let mut text = format!("{} +- {}", duration(time.median_ns), percent(time));
    if let Some(cycles) = time.cycles {
        let _ = write!(text, ", {cycles:.0} cycles");
    }
    text
}

fn write_table(to: &mut String, report: &Report) -> fmt::Result {
    let engines: Vec<usize> = report.measured().map(|(engine, _)| engine).collect();
    write!(
        to,
        "<section><h2>In figures</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>operation</th>"
    )?;
    for &engine in &engines {
        let name = escape(&report.engines[engine].name);
        let colour = colour(engine);
        let span = if Some(engine) == report.reference { 3 } else { 4 };
        write!(to, "<th class=\"{colour}\" colspan=\"{span}\">{name}</th>")?;
    }
    write!(to, "</tr>\n<tr class=\"units\"><th></th>")?;
    for &engine in &engines {
        write!(to, "<th>median</th><th>spread</th><th>cycles</th>")?;
        if let Some(reference) = report.reference.filter(|&reference| reference != engine) {
            write!(to, "<th>/ {}</th>", escape(&report.engines[reference].name))?;
        }
    }
    writeln!(to, "</tr></thead>\n<tbody>")?;
    for row in &report.rows {
        let (name, about) = (escape(&row.name), escape(&row.about));
        write!(to, "<tr><th scope=\"row\">{name}<small>{about}</small></th>")?;
        for &engine in &engines {
            write_cell(to, &row.cells[engine], Some(engine) == report.reference)?;
        }
        writeln!(to, "</tr>")?;
    }
    writeln!(
        to,
        "</tbody></table></div>\n<p class=\"hint\">Spread: half the distance of the quartiles. \
         Cycles: of the host's time-stamp counter.</p></section>"
    )
}

fn write_cell(to: &mut String, cell: &Cell, is_reference: bool) -> fmt::Result {
    let columns = if is_reference { 3 } else { 4 };
    let Some(time) = &cell.time else {
        let why = escape(cell.failure.as_deref().unwrap_or("\u{2013}"));
        return write!(to, "<td class=\"none\" colspan=\"{columns}\">{why}</td>");
    };
    let median = duration(time.median_ns).replace("us", "\u{b5}s");
    let cycles = time.cycles.map_or("\u{2013}".to_owned(), |cycles| {
        if cycles < 10.0 { format!("{cycles:.1}") } else { format!("{cycles:.0}") }
    });
    write!(
        to,
        "<td class=\"time\">{}</td><td class=\"soft\">{}</td><td class=\"soft\">{cycles}</td>",
        escape(&median),
        percent(time)
    )?;
    if !is_reference {
        let shown = cell.ratio.map_or("\u{2013}".to_owned(), ratio);
        write!(to, "<td class=\"ratio {}\">{shown}</td>", pace(cell.ratio))?;
    }
    Ok(())
}

/// How a ratio looks.
fn pace(ratio: Option<f64>) -> &'static str {
    match ratio {
        Some(ratio) if ratio < 0.8 => "faster",
        Some(ratio) if ratio > 10.0 => "slowest",
        Some(ratio) if ratio > 2.0 => "slower",
        _ => "",
    }
}

fn write_counts(to: &mut String, report: &Report) -> fmt::Result {
    let cells = report.rows.iter().flat_map(|row| {
        row.cells.iter().enumerate().map(move |(engine, cell)| (row, engine, cell))
    });
    let told: Vec<_> = cells.filter(|(_, _, cell)| !cell.counts.is_empty()).collect();
    if told.is_empty() {
        return Ok(());
    }
    writeln!(
        to,
        "<section><h2>Where engines leave their fast path</h2>\n<div class=\"scroll\">\
         <table class=\"counts\">\n<thead><tr><th>operation</th><th>engine</th>\
         <th>for one operation</th></tr></thead>\n<tbody>"
    )?;
    for (row, engine, cell) in told {
        writeln!(
            to,
            "<tr><th scope=\"row\">{}</th><td class=\"{}\"><b>{}</b></td><td>{}</td></tr>",
            escape(&row.name),
            colour(engine),
            escape(&report.engines[engine].name),
            escape(&kinds(&cell.counts))
        )?;
    }
    writeln!(to, "</tbody></table></div></section>")
}
