//! SVG as text: a page with a style for light and dark, and the few shapes that charts need.

use std::fmt::Write;

/// Plain colours, and others where the reader's screen is dark: not every renderer knows variables.
const STYLE: &str = "\
text{font:12px system-ui,'DejaVu Sans',sans-serif;fill:#24292f}\
.title{font-size:19px;font-weight:600}.head{font-size:13px;font-weight:600}.note{font-size:11px;fill:#57606a}\
.end{text-anchor:end}.middle{text-anchor:middle}\
.grid,.limit,.flight,.p50,.p99{fill:none}.limit{stroke-dasharray:3 2}.p50,.p99{stroke-width:1.5}\
.paper{fill:#fff}.band{fill:#e4e9ee}.grid{stroke:#d0d7de}.limit{stroke:#57606a}\
.ok,.closed,.good{fill:#2da44e}.degraded,.half-open{fill:#d4a72c}.shed{fill:#0969da}\
.error,.open,.bad{fill:#cf222e}.timeout{fill:#8250df}.p50,.flight{stroke:#0969da}.p99{stroke:#cf222e}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.note{fill:#9198a1}\
.paper{fill:#0d1117}.band{fill:#272e38}.grid{stroke:#30363d}.limit{stroke:#9198a1}\
.ok,.closed,.good{fill:#3fb950}.degraded,.half-open{fill:#d29922}.shed{fill:#58a6ff}\
.error,.open,.bad{fill:#f85149}.timeout{fill:#bc8cff}.p50,.flight{stroke:#58a6ff}.p99{stroke:#f85149}}";

/// A character of the small text, on average, in pixels: more than it is, so that lines are too short rather than too long.
const NOTE_WIDTH: f64 = 6.4;

#[derive(Default)]
pub(super) struct Page(String);

impl Page {
    pub(super) fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.0,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
        );
    }

    pub(super) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let _ = writeln!(
            self.0,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
        );
    }

    /// An open line through these points; gaps where there is none.
    pub(super) fn line(&mut self, class: &str, points: &[Option<(f64, f64)>]) {
        let mut path = String::new();
        let mut drawing = false;
        for point in points {
            match point {
                Some((x, y)) => {
                    let _ = write!(path, "{}{x:.1} {y:.1}", if drawing { "L" } else { "M" });
                    drawing = true;
                }
                None => drawing = false,
            }
        }
        if !path.is_empty() {
            let _ = writeln!(self.0, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }

    /// What lies between a lower and an upper edge, each a step for each interval.
    pub(super) fn area(&mut self, class: &str, xs: &[f64], lower: &[f64], upper: &[f64]) {
        if lower.iter().zip(upper).all(|(lower, upper)| lower == upper) {
            return;
        }
        let mut path = String::new();
        for (index, y) in upper.iter().enumerate() {
            let verb = if index == 0 { "M" } else { "L" };
            let _ = write!(path, "{verb}{:.1} {y:.1}H{:.1}", xs[index], xs[index + 1]);
        }
        for (index, y) in lower.iter().enumerate().rev() {
            let _ = write!(path, "L{:.1} {y:.1}H{:.1}", xs[index + 1], xs[index]);
        }
        let _ = writeln!(self.0, "<path class=\"{class}\" d=\"{path}Z\"/>");
    }

    pub(super) fn finish(self, title: &str, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n\
             <title>{}</title>\n<style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n{}</svg>\n",
            escape(title),
            self.0
        )
    }
}

/// Lines of small text that fit into this width.
pub(super) fn wrap(text: &str, width: f64) -> Vec<String> {
    let room = (width / NOTE_WIDTH).max(10.0) as usize;
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
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
    fn a_long_line_becomes_several_that_fit_and_no_word_is_lost() {
        let text = "the breaker opens within twenty requests and lets nothing but probes pass";
        let lines = wrap(text, 200.0);
        assert!(lines.len() > 2);
        assert!(
            lines.iter().all(|line| line.chars().count() <= 31),
            "{lines:?}"
        );
        assert_eq!(lines.join(" "), text);
    }

    #[test]
    fn what_a_scenario_says_cannot_become_markup() {
        let mut page = Page::default();
        page.text("note", 0.0, 0.0, "a < b & c");
        let svg = page.finish("<x>", 10.0, 10.0);
        assert!(
            svg.contains("a &lt; b &amp; c") && !svg.contains("<x>"),
            "{svg}"
        );
    }
}
