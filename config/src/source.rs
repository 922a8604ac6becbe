//! The text of a file, asked for places: from a range of bytes to line, column and the line itself.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use crate::diagnostic::{Diagnostic, Excerpt, Label, Severity};

/// Longer lines are quoted around the mistake only.
const LINE_WIDTH_MAX: usize = 160;
/// Nobody reads longer sentences, and names in them may be as long as their writer likes.
const SENTENCE_MAX: usize = 600;
/// How much of a long line stands before the mistake.
const CONTEXT_BEFORE: usize = 40;

pub(crate) struct Source<'a> {
    pub(crate) file: &'a str,
    text: &'a str,
    /// Byte at which each line starts.
    lines: Vec<usize>,
}

/// What is wrong, before it is known how to show it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) at: Range<usize>,
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) secondary: Option<Box<(Range<usize>, String)>>,
}

impl Finding {
    pub(crate) fn error(at: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            at,
            path: String::new(),
            message: message.into(),
            help: None,
            secondary: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    pub(crate) fn also(mut self, at: Range<usize>, text: impl Into<String>) -> Self {
        self.secondary = Some(Box::new((at, text.into())));
        self
    }
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &'a str, text: &'a str) -> Self {
        // A byte order mark is no character of the first line.
        let first = if text.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        let rest = text
            .bytes()
            .enumerate()
            .filter(|(at, byte)| match byte {
                b'\n' => true,
                // By itself it ends a line of YAML, too.
                b'\r' => text.as_bytes().get(at + 1) != Some(&b'\n'),
                _ => false,
            })
            .map(|(at, _)| at + 1);
        Self {
            file,
            text,
            lines: std::iter::once(first).chain(rest).collect(),
        }
    }

    pub(crate) fn diagnose(&self, finding: Finding, resource: Option<&str>) -> Diagnostic {
        Diagnostic {
            severity: finding.severity,
            message: clean(&finding.message),
            file: self.file.to_owned(),
            at: self.excerpt(finding.at),
            path: clean(&finding.path),
            resource: resource.map(clean),
            secondary: finding.secondary.map(|secondary| {
                let (at, text) = *secondary;
                Label {
                    at: self.excerpt(at),
                    text,
                }
            }),
            help: finding
                .help
                .map(|help| help.lines().map(clean).collect::<Vec<_>>().join("\n")),
        }
    }

    /// From 1.
    pub(crate) fn line(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte).max(1)
    }

    fn excerpt(&self, range: Range<usize>) -> Excerpt {
        let at = self.boundary(range.start.max(self.lines[0]));
        let number = self.line(at);
        let start = self.lines[number - 1];
        let line = self.line_text(number);
        // A place behind the last character, such as the line break itself, is shown right behind it.
        let before = &line[..(at - start).min(line.len())];
        let end = self
            .boundary(range.end)
            .saturating_sub(start)
            .clamp(before.len(), line.len());
        let marked = line[before.len()..end].trim_end();

        let shown = Window::around(line, before.len());
        Excerpt {
            line: number,
            column: before.chars().count() + 1,
            indent: shown.lead() + width(&before[shown.from.min(before.len())..]),
            width: width(&marked[..marked.len().min(shown.to.saturating_sub(before.len()))]).max(1),
            text: shown.text(line),
        }
    }

    /// Without its line break.
    fn line_text(&self, number: usize) -> &'a str {
        let start = self.lines[number - 1];
        let end = self
            .lines
            .get(number)
            .map_or(self.text.len(), |next| next - 1);
        let line = self.text.get(start..end).unwrap_or_default();
        line.strip_suffix('\r').unwrap_or(line)
    }

    /// The nearest start of a character at or before `byte`.
    fn boundary(&self, byte: usize) -> usize {
        let mut at = byte.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }
}

/// The part of a line that is quoted.
struct Window {
    from: usize,
    to: usize,
    cut_before: bool,
    cut_after: bool,
}

impl Window {
    fn around(line: &str, byte: usize) -> Self {
        let at = line[..byte].chars().count();
        let count = line.chars().count();
        let byte_of = |index: usize| {
            line.char_indices()
                .nth(index)
                .map_or(line.len(), |(byte, _)| byte)
        };
        let first = if count <= LINE_WIDTH_MAX {
            0
        } else {
            at.saturating_sub(CONTEXT_BEFORE)
        };
        let last = count.min(first + LINE_WIDTH_MAX);
        Self {
            from: byte_of(first),
            to: byte_of(last),
            cut_before: first > 0,
            cut_after: last < count,
        }
    }

    const CUT: &str = "…";

    fn lead(&self) -> usize {
        usize::from(self.cut_before)
    }

    fn text(&self, line: &str) -> String {
        let shown = line[self.from..self.to].chars().map(printable);
        let before = if self.cut_before { Self::CUT } else { "" };
        let after = if self.cut_after { Self::CUT } else { "" };
        before.chars().chain(shown).chain(after.chars()).collect()
    }
}

/// As many columns as the terminal gives it.
fn width(text: &str) -> usize {
    text.chars()
        .map(|c| printable(c).width().unwrap_or(1))
        .sum()
}

/// A sentence may quote anything from the file.
fn clean(text: &str) -> String {
    let mut chars = text.chars().map(printable);
    let clean: String = chars.by_ref().take(SENTENCE_MAX).collect();
    if chars.next().is_some() {
        clean + Window::CUT
    } else {
        clean
    }
}

/// Tabs one column wide, so that carets stand below what they mean; whatever a terminal would act upon, or would
/// show in another order, as the sign for a character that cannot be shown.
fn printable(c: char) -> char {
    match c {
        '\t' => '→',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}' => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, what: &str) -> Excerpt {
        let at = text.find(what).expect("it is there");
        Source::new("f", text).excerpt(at..at + what.len())
    }

    #[test]
    fn columns_are_counted_in_characters_and_carets_in_terminal_columns() {
        let place = excerpt("a: x\nб: {日本: wrong}\n", "wrong");
        assert_eq!((place.line, place.column), (2, 9));
        assert_eq!(
            (place.indent, place.width),
            (10, 5),
            "two wide characters take two columns each"
        );
    }

    #[test]
    fn carriage_returns_belong_to_no_line() {
        let place = excerpt("a: 1\r\nb: wrong\r\n", "wrong\r");
        assert_eq!((place.line, place.column, place.width), (2, 4, 5));
        assert_eq!(place.text, "b: wrong");
    }

    #[test]
    fn a_byte_order_mark_is_not_a_column() {
        assert_eq!(excerpt("\u{feff}bad: 1", "bad").column, 1);
    }

    #[test]
    fn what_a_terminal_would_act_upon_is_not_quoted() {
        assert_eq!(
            excerpt("a: \x1b[2J\u{202e}wrong", "wrong").text,
            "a: \u{fffd}[2J\u{fffd}wrong"
        );
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("a: [{}wrong{}]", "x, ".repeat(500), ", x".repeat(500));
        let place = excerpt(&text, "wrong");
        assert_eq!(place.column, 1505);
        assert_eq!(place.text.chars().count(), LINE_WIDTH_MAX + 2);
        let caret: String = place
            .text
            .chars()
            .skip(place.indent)
            .take(place.width)
            .collect();
        assert_eq!(caret, "wrong");
    }
}
