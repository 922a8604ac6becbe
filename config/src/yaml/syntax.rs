//! What the YAML parser complains about, in words for people who do not know its insides.

use granit_parser::{ErrorKind, ScanError};

use super::documents::too_deep;
use super::tree::Stop;
use crate::source::Finding;

pub(super) fn explain(error: &ScanError, text: &str) -> Stop {
    let at = error
        .marker()
        .byte_offset()
        .unwrap_or(text.len())
        .min(text.len());
    if let Some(tab) = indenting_tab(text, at) {
        let finding = Finding::error(tab..tab + 1, "a tab cannot indent YAML");
        return finding.help("indent with spaces").into();
    }
    let here = at..at + text[at..].chars().next().map_or(0, char::len_utf8);
    let finding = match error.kind() {
        ErrorKind::RecursionLimitExceeded => return too_deep(here),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart
        | ErrorKind::TabInPlainScalar => {
            Finding::error(here, "a tab cannot stand here in YAML").help("write spaces instead")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            Finding::error(here, format!("this `{open}` is never closed"))
                .help("write what closes it at the end of its line")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => Finding::error(
            here,
            format!("`{close}` closes what was opened with `{open}`"),
        )
        .help("brackets close in the order in which they were opened, innermost first"),
        ErrorKind::UnclosedQuotedScalar => Finding::error(here, "this quoted text is never closed")
            .help("write the quote at its end, too"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            Finding::error(here, "a `:` cannot stand here")
                .help("check the indentation, and put text that contains `: ` in quotes")
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey => Finding::error(here, "expected `field: value` here")
            .help("check the indentation, and that each field has its `:` and a space after it"),
        _ => Finding::error(here, format!("this is not YAML: {}", error.info()))
            .help("check commas, brackets and quotes just before this place"),
    };
    finding.into()
}

/// The first tab of the indentation of the line of `at`, when it has one: whatever the parser says then, this is why.
fn indenting_tab(text: &str, at: usize) -> Option<usize> {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    // The parser may have noticed only at the next line.
    let before = text[..start.saturating_sub(1)]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    [start, before].into_iter().find_map(|start| {
        let line = text[start..].lines().next().unwrap_or_default();
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        line[..indent].find('\t').map(|tab| start + tab)
    })
}
