//! The picture: bars, drawn as text. What is Weir's has a colour, the rest is grey.

use std::fmt::Write;

use crate::rounds::{Cell, Figures, Load};
use crate::shape::Shape;
use crate::statistic::Sample;
use crate::table::Report;

const WIDTH: usize = 980;
const PANEL: usize = WIDTH / 2 - 30;
const BAR: usize = 17;
const STEP: usize = 23;
const NAMES: usize = 150;
/// For the figure behind a bar.
const VALUES: usize = 78;
const TOP: usize = 62;
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:20px;font-weight:600}\
.panel{font-size:13px;font-weight:600}.note{font-size:11px;fill:#57606a}.name{text-anchor:end}\
.weir{fill:#0a7f78}.relay{fill:#8c959f}.other{fill:#c3c9d0}.tail{fill-opacity:.35}";

struct Panel {
    title: String,
    unit: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    name: String,
    value: f64,
    /// A longer, paler bar behind it.
    tail: Option<f64>,
}

pub fn render(report: &Report) -> String {
    let panels = panels(report);
    let mut body = String::new();
    let mut y = TOP;
    for pair in panels.chunks(2) {
        let rows = pair.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        for (column, panel) in pair.iter().enumerate() {
            draw(panel, 20 + column * (WIDTH / 2), y, &mut body);
        }
        y += 34 + rows * STEP + 14;
    }
    let versions: Vec<String> = report
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    let notes = [
        format!("{} · {} · {}", report.command, report.date, report.machine),
        format!(
            "{} · one worker each, all on one core",
            versions.join(" · ")
        ),
        format!(
            "median of {} interleaved rounds · pale: p99 · benches/README.md",
            report.rounds
        ),
    ];
    for (row, note) in notes.iter().enumerate() {
        let y = y + 12 + row * 16;
        body += &format!(
            "<text class=\"note\" x=\"20\" y=\"{y}\">{}</text>\n",
            escape(note)
        );
    }
    let height = y + 60;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n\
         <title>What a hop costs</title>\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"20\" y=\"34\">What a hop costs</text>\n{body}</svg>\n"
    )
}

fn panels(report: &Report) -> Vec<Panel> {
    let saturated = Cell {
        shape: Shape::GrpcSmall,
        load: Load::Saturation,
    };
    let rated = Cell {
        shape: Shape::GrpcSmall,
        load: Load::Rate(1000),
    };
    let http1 = Cell {
        shape: Shape::Http1,
        load: Load::Saturation,
    };
    let mut panels = Vec::new();
    for (cell, what) in [
        (saturated, "a gRPC call at saturation"),
        (http1, "an HTTP/1.1 request at saturation"),
        (rated, "a gRPC call at 1,000/s"),
    ] {
        for (two, hops) in [(false, "one plain hop"), (true, "two hops, mutual TLS")] {
            panels.push(cpu(report, cell, two, format!("CPU {what}, {hops}")));
        }
    }
    panels.push(latency(report, rated, true));
    panels.push(memory(report));
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

fn cpu(report: &Report, cell: Cell, two: bool, title: String) -> Panel {
    let subjects = report.subjects(cell).into_iter();
    let bar = |name: &str| {
        let value = report.sample(name, cell, |figures| &figures.cpu).median()?;
        Some(Bar {
            name: short(name),
            value,
            tail: None,
        })
    };
    let bars = subjects
        .filter(|name| name.contains("2×") == two && *name != "no proxy")
        .filter_map(bar)
        .collect();
    Panel {
        title,
        unit: "µs",
        bars,
    }
}

fn latency(report: &Report, cell: Cell, two: bool) -> Panel {
    let added = |name: &str, what: fn(&Figures) -> &Sample| {
        report
            .sample(name, cell, what)
            .minus(&report.sample("no proxy", cell, what))
            .median()
    };
    let bar = |name: &str| {
        let value = added(name, |figures| &figures.p50)?;
        Some(Bar {
            name: short(name),
            value,
            tail: added(name, |figures| &figures.p99),
        })
    };
    let subjects = report
        .subjects(cell)
        .into_iter()
        .filter(|name| name.contains("2×") == two && *name != "no proxy");
    let mut bars: Vec<Bar> = subjects.filter_map(bar).collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    Panel {
        title: "added latency p50 / p99, 1,000 gRPC calls/s, two hops".into(),
        unit: "µs",
        bars,
    }
}

fn memory(report: &Report) -> Panel {
    let bar = |(name, memory): (&String, &crate::memory::Memory)| {
        let value = memory.idle? as f64 / 1024.0;
        Some(Bar {
            name: short(name),
            value,
            tail: None,
        })
    };
    let one_hop = report
        .memory
        .iter()
        .filter(|(name, _)| !name.contains("2×"));
    let mut bars: Vec<Bar> = one_hop.filter_map(bar).collect();
    bars.sort_by(|a, b| a.value.total_cmp(&b.value));
    Panel {
        title: "resident memory, idle".into(),
        unit: "MiB",
        bars,
    }
}

fn draw(panel: &Panel, x: usize, y: usize, out: &mut String) {
    let longest = panel
        .bars
        .iter()
        .map(|bar| bar.value.max(bar.tail.unwrap_or(0.0)))
        .fold(1e-9, f64::max);
    let room = (PANEL - NAMES - VALUES) as f64;
    let length = |value: f64| (value.max(0.0) / longest * room).max(1.0);
    let mut line = |text: String| writeln!(out, "{text}").expect("a string has room");
    line(format!(
        "<text class=\"panel\" x=\"{x}\" y=\"{}\">{}</text>",
        y + 14,
        escape(&panel.title)
    ));
    for (row, bar) in panel.bars.iter().enumerate() {
        let (top, left) = (y + 26 + row * STEP, x + NAMES);
        let class = class(&bar.name);
        line(format!(
            "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            left - 8,
            top + 13,
            escape(&bar.name)
        ));
        if let Some(tail) = bar.tail {
            line(format!(
                "<rect class=\"{class} tail\" x=\"{left}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
                length(tail)
            ));
        }
        line(format!(
            "<rect class=\"{class}\" x=\"{left}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>",
            length(bar.value)
        ));
        let end = left as f64 + length(bar.value.max(bar.tail.unwrap_or(0.0))) + 6.0;
        let text = match bar.tail {
            Some(tail) => format!("{} / {} {}", figure(bar.value), figure(tail), panel.unit),
            None => format!("{} {}", figure(bar.value), panel.unit),
        };
        line(format!(
            "<text x=\"{end:.1}\" y=\"{}\">{text}</text>",
            top + 13
        ));
    }
}

fn figure(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

fn class(name: &str) -> &'static str {
    if name.starts_with("weir") {
        "weir"
    } else if name.starts_with("bare") {
        "relay"
    } else {
        "other"
    }
}

/// The panel's title says how many hops there are.
fn short(name: &str) -> String {
    let scaled = name.replace(" · 1000 services, 1 endpoints, 0 routes", ", large mesh");
    scaled.replace(" 2×mTLS", "")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_its_place_and_the_others_are_in_proportion() {
        let bar = |name: &str, value| Bar {
            name: name.into(),
            value,
            tail: None,
        };
        let panel = Panel {
            title: "a < b".into(),
            unit: "µs",
            bars: vec![bar("weir", 10.0), bar("envoy", 20.0)],
        };
        let mut out = String::new();
        draw(&panel, 0, 0, &mut out);
        let room = (PANEL - NAMES - VALUES) as f64;
        assert!(out.contains(&format!("width=\"{room:.1}\"")), "{out}");
        assert!(
            out.contains(&format!(
                "class=\"weir\" x=\"{NAMES}\" y=\"26\" width=\"{:.1}\"",
                room / 2.0
            )),
            "{out}"
        );
        assert!(out.contains("a &lt; b"));
    }
}
