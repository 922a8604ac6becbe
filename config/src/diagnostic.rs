//! A mistake in a file: where it is, what was found there, what was expected, and what to write instead.
//!
//! ```text
//! error: expected a duration such as 250ms, 2s or 1m30s, found "2 seconds"
//!   --> policies/payment.yaml:9:15  spec.outbound.deadline
//!    |
//!  9 |     deadline: 2 seconds
//!    |               ^^^^^^^^^
//!    = write it as 2s
//! ```
//!
//! A diagnostic carries the lines it shows, so it can be printed where the file is not: in a journal, a status,
//! an answer to a command.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub severity: Severity,
    /// One sentence: what was expected, what was found.
    pub message: String,
    pub file: String,
    pub at: Excerpt,
    /// `spec.outbound.retries.attempts`; empty when the mistake is in the file rather than in a field.
    pub path: String,
    /// `ResiliencePolicy boutique/payment`, as far as the document says who it is.
    pub resource: Option<String>,
    /// The other field that has a part in it.
    pub secondary: Option<Label>,
    /// What to write instead.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    Error,
    Warning,
}

/// A place in a file with the line around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excerpt {
    /// From 1; 0 where no line can be named.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// Where the caret stands below `text`, and how many of them, in terminal columns.
    pub indent: usize,
    pub width: usize,
    /// The line, cut when it is very long, and without what a terminal would act upon.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    pub at: Excerpt,
    pub text: String,
}

impl Diagnostic {
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let Excerpt { line, column, .. } = self.at;
        writeln!(f, "{severity}: {}", self.message)?;
        write!(f, "  --> {}:{line}:{column}", self.file)?;
        if !self.path.is_empty() {
            write!(f, "  {}", self.path)?;
        }
        writeln!(f)?;
        write!(f, "{}", Snippet(self))?;
        if let Some(help) = &self.help {
            for (index, line) in help.lines().enumerate() {
                let mark = if index == 0 { '=' } else { ' ' };
                writeln!(
                    f,
                    "{:gutter$} {mark} {line}",
                    "",
                    gutter = Snippet(self).gutter()
                )?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// The quoted lines with their carets, in the order of the file.
struct Snippet<'a>(&'a Diagnostic);

impl Snippet<'_> {
    /// Width of the column of line numbers.
    fn gutter(&self) -> usize {
        let last = self
            .0
            .secondary
            .as_ref()
            .map_or(0, |label| label.at.line)
            .max(self.0.at.line);
        last.to_string().len() + 1
    }
}

impl fmt::Display for Snippet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gutter = self.gutter();
        let mut quotes = vec![(&self.0.at, '^', "")];
        if let Some(label) = &self.0.secondary {
            quotes.push((&label.at, '-', label.text.as_str()));
        }
        quotes.sort_by_key(|(at, ..)| (at.line, at.column));
        writeln!(f, "{:gutter$} |", "")?;
        let mut shown = None;
        for (at, mark, text) in quotes {
            match shown {
                Some(line) if line == at.line => {}
                Some(line) => {
                    if line + 1 < at.line {
                        writeln!(f, "{:>gutter$}", "...")?;
                    }
                    writeln!(f, "{:>gutter$} | {}", at.line, at.text)?;
                }
                None => writeln!(f, "{:>gutter$} | {}", at.line, at.text)?,
            }
            shown = Some(at.line);
            let carets = mark.to_string().repeat(at.width.max(1));
            let before = at.indent;
            writeln!(
                f,
                "{:gutter$} | {}",
                "",
                format!("{:before$}{carets} {text}", "").trim_end()
            )?;
        }
        Ok(())
    }
}
