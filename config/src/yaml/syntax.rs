//! What the YAML parser complains about, in words for people who do not know its insides.

use std::ops::Range;

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
        | ErrorKind::TabInPlainScalar => tab(text, here),
        ErrorKind::UnclosedFlowCollection { open } => {
            Finding::error(here, format!("this `{open}` is never closed"))
                .help("write what closes it at the end of its line")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => Finding::error(
            here,
            format!("`{close}` closes what was opened with `{open}`"),
        )
        .help("brackets close in the order in which they were opened, innermost first"),
        ErrorKind::MisplacedFlowCollectionEnd => {
            Finding::error(here, "this closes nothing").help("take it out, or write what opens it")
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::DocumentIndicatorInQuotedScalar => {
            Finding::error(here, "this quoted text is never closed")
                .help("write the quote at its end, too")
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => after_a_quote(error.kind(), here),
        ErrorKind::UnknownQuotedScalarEscape
        | ErrorKind::InvalidQuotedScalarHexEscape
        | ErrorKind::InvalidLowSurrogateHexEscape
        | ErrorKind::InvalidLowSurrogate
        | ErrorKind::MissingLowSurrogate
        | ErrorKind::UnpairedLowSurrogate
        | ErrorKind::InvalidUnicodeEscape => escape(text, here),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => colon(text, here),
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::SimpleKeyExpected
        | ErrorKind::InvalidSimpleKey => no_field(text, here),
        ErrorKind::ExpectedFlowMappingSeparator => comma(text, here, '}'),
        ErrorKind::ExpectedFlowSequenceSeparator => comma(text, here, ']'),
        ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::ExpectedNodeContent
            if text[here.clone()] == *"," =>
        {
            Finding::error(here, "there is nothing before this `,`").help("take one `,` out")
        }
        ErrorKind::MissingAnchorOrAliasName => {
            let sign = &text[here.clone()];
            let message = format!("a text that begins with `{sign}` needs quotes");
            Finding::error(here, message).help("put it in quotes")
        }
        ErrorKind::UnexpectedCharacter { character } => unexpected(*character, here),
        ErrorKind::BomInsideDocument => Finding::error(
            here,
            "a byte order mark (U+FEFF, which cannot be seen) stands inside the file",
        )
        .help("take it out, such as by writing this line anew"),
        ErrorKind::ExpectedDocumentStart => {
            Finding::error(here, "expected `---` here, before what is another document")
                .help("write --- on a line of its own")
        }
        ErrorKind::BlockEntryInFlowCollection => {
            Finding::error(here, "`-` cannot begin an item between brackets")
                .help("between brackets items are written with commas, such as [a, b]")
        }
        ErrorKind::BlockSequenceEntryNotAllowed => {
            Finding::error(here, "an item of a list cannot begin here")
                .help("begin each on a line of its own, all of them in one column")
        }
        ErrorKind::ExpectedBlockSequenceEntry => {
            Finding::error(here, "expected `- `, as the items above have it")
                .help("check the indentation: what belongs to an item stands right of its hyphen")
        }
        ErrorKind::CommentInterceptedScalar | ErrorKind::CommentNotSeparated => {
            Finding::error(here, "a comment cannot stand here")
                .help("write a space before its `#`, and no comment within a text")
        }
        ErrorKind::InvalidIndentation
        | ErrorKind::InvalidQuotedScalarIndent
        | ErrorKind::InvalidFlowScalarIndent
        | ErrorKind::InvalidBlockScalarIndent => {
            Finding::error(here, "this line does not stand far enough to the right")
                .help("indent it more than the field that it belongs to")
        }
        ErrorKind::ZeroBlockScalarIndent | ErrorKind::InvalidBlockScalarHeader => Finding::error(
            here,
            "nothing can stand behind the `|` or `>` of a long text",
        )
        .help("begin the text on the next line, or put it in quotes without the sign"),
        ErrorKind::UndeclaredTagHandle
        | ErrorKind::ExpectedTagBang
        | ErrorKind::InvalidGlobalTagCharacter
        | ErrorKind::InvalidTagTerminator
        | ErrorKind::MissingTagUri
        | ErrorKind::UnclosedVerbatimTag
        | ErrorKind::InvalidTagEscape => {
            Finding::error(here, "`!` begins a tag, and this is none that YAML knows")
                .help("take it out, or put a text that begins with `!` in quotes")
        }
        _ if line_of(text, at).1.starts_with('%') => Finding::error(
            here,
            "`%` at the beginning of a line is for directives of YAML",
        )
        .help("take the line out: a policy needs none"),
        _ => Finding::error(here, "this is not YAML")
            .help("check indentation, commas, brackets and quotes just before this place"),
    };
    finding.into()
}

/// What is still to be filled in is neither right nor wrong; whatever is said of it otherwise misleads.
pub(super) fn unless_a_template(stop: Stop, text: &str) -> Stop {
    let Stop::Broken(finding) = &stop else {
        return stop;
    };
    let (start, line) = line_of(text, finding.at.start.min(text.len()));
    let Some(open) = line.find("{{") else {
        return stop;
    };
    let open = start + open;
    Finding::error(
        open..open + 2,
        "this is a template, which is to become YAML",
    )
    .help("fill it in first, such as with: helm template CHART | weir validate -f -")
    .into()
}

/// Some are noticed where the text begins that they interrupt.
fn tab(text: &str, here: Range<usize>) -> Finding {
    let Some(tab) = text[here.start..].find('\t').map(|it| here.start + it) else {
        return Finding::error(here, "a tab cannot stand here in YAML")
            .help("write spaces instead");
    };
    match indenting_tab(text, tab) {
        Some(tab) => {
            Finding::error(tab..tab + 1, "a tab cannot indent YAML").help("indent with spaces")
        }
        None => Finding::error(tab..tab + 1, "a tab cannot stand here in YAML")
            .help("write spaces instead"),
    }
}

fn after_a_quote(kind: &ErrorKind, here: Range<usize>) -> Finding {
    let inside = match kind {
        ErrorKind::InvalidTrailingSingleQuotedScalar => "''",
        _ => "\\\"",
    };
    Finding::error(here, "the quoted text before this has ended").help(format!(
        "write {inside} for a quote inside it, and a `,` between two values"
    ))
}

/// The parser tells where the text begins.
fn escape(text: &str, here: Range<usize>) -> Finding {
    const KNOWN: &str = "0abt\tnvfre \"/\\N_LPxuU\r\n";
    let mut at = here;
    let inside = &text[at.start..];
    let mut chars = inside.char_indices().skip(1);
    while let Some((byte, c)) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some((_, next)) if !KNOWN.contains(next) => {
                    at = at.start + byte..at.start + byte + 1 + next.len_utf8();
                    break;
                }
                _ => {}
            },
            _ => {}
        }
    }
    let found = text[at.clone()].chars().take(2).collect::<String>();
    let finding = Finding::error(at, "between double quotes a backslash begins an escape");
    finding.help(match found.strip_prefix('\\') {
        Some(_) => {
            format!("there is no {found}: write \\{found}, or put the text in single quotes")
        }
        None => "write each backslash twice, or put the text in single quotes".to_owned(),
    })
}

/// A `:` where there cannot be one: often the mistake is earlier.
fn colon(text: &str, here: Range<usize>) -> Finding {
    let (start, line) = line_of(text, here.start);
    let before = text.get(start..here.start).unwrap_or_default();
    if !before.contains(": ")
        && let Some((above, upper)) = line_above(text, start)
    {
        if let Some((colon, written)) = glued(upper) {
            let colon = above + colon;
            return Finding::error(colon..colon + 1, "a space is missing after this `:`")
                .help(format!("write {written}"));
        }
        let has_value = |line: &str| line.contains(": ");
        if indent(line) > indent(upper) && has_value(upper) {
            let first = start + indent(line);
            let end = start + line.len().min(before.len());
            return Finding::error(
                first..end,
                "this is indented further than the field above it, which has a value already",
            )
            .help("begin it in the same column as the field above");
        }
    }
    Finding::error(here, "a `:` cannot stand here")
        .help("check the indentation, and put text that contains `: ` in quotes")
}

fn no_field(text: &str, here: Range<usize>) -> Finding {
    let (start, line) = line_of(text, here.start);
    let trimmed = line.trim();
    if trimmed.len() > 3 && trimmed.bytes().all(|byte| byte == b'-') {
        return Finding::error(
            start..start + line.len(),
            "documents are parted by three hyphens",
        )
        .help("write ---");
    }
    let finding = Finding::error(here.clone(), "expected `field: value` here");
    if trimmed.starts_with("- ") {
        let hyphen = start + indent(line);
        return Finding::error(hyphen..hyphen + 1, "an item of a list stands among fields")
            .help("begin each item of the list with `- `, and put fields inside the items");
    }
    if let Some((name, value)) = trimmed.split_once('=').filter(|_| !trimmed.contains(": ")) {
        return finding.help(format!("write {}: {}", name.trim(), value.trim()));
    }
    finding.help("check the indentation, and that each field has its `:` and a space after it")
}

/// Something else where a comma or what closes a map or list was to come.
fn comma(text: &str, here: Range<usize>, close: char) -> Finding {
    let mut at = here;
    let mut help = "write a `,` before it";
    if text[at.clone()] == *":" {
        // `2 perTryTimeout:` is a value and a field, between which the comma is missing.
        let (start, _) = line_of(text, at.start);
        let before = &text[start..at.start];
        let word = before.rfind([' ', ',', '{', '[']).map_or(0, |it| it + 1);
        match before[..word].trim_end().chars().next_back() {
            Some(last) if word < before.len() && !":,{[".contains(last) => {
                at = start + word..at.start;
            }
            _ => help = "put a text that contains a `:` in quotes, and a `,` between two fields",
        }
    } else {
        let rest = &text[at.start..];
        let word = rest.find(|c: char| !(c.is_alphanumeric() || "\"'_-".contains(c)));
        at.end = at.end.max(at.start + word.unwrap_or(rest.len()));
    }
    Finding::error(at, format!("expected `,` or `{close}` here")).help(help)
}

fn unexpected(character: char, here: Range<usize>) -> Finding {
    if character.is_control() {
        let message = format!(
            "a control character (U+{:04X}) stands here",
            character as u32
        );
        return Finding::error(here, message).help("take it out");
    }
    Finding::error(
        here,
        format!("an unquoted text cannot begin with `{character}`"),
    )
    .help(format!(
        "take the `{character}` out, or put the text in quotes"
    ))
}

/// `deadline:2s`: where its colon is, and how it is written.
fn glued(line: &str) -> Option<(usize, String)> {
    let colon = line.find(':').filter(|_| !line.contains(": "))?;
    let (name, value) = (
        line[..colon].trim_start_matches(['-', ' ']),
        &line[colon + 1..],
    );
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let fits = !name.is_empty() && name.chars().all(is_name) && !value.trim().is_empty();
    (fits && !value.starts_with("//")).then(|| (colon, format!("{name}: {}", value.trim())))
}

fn line_of(text: &str, at: usize) -> (usize, &str) {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (start, text[start..].lines().next().unwrap_or_default())
}

/// The nearest with something in it.
fn line_above(text: &str, mut start: usize) -> Option<(usize, &str)> {
    while start > 0 {
        let (above, line) = line_of(text, start - 1);
        if !(line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Some((above, line));
        }
        start = above;
    }
    None
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The first tab of the indentation of the line of `at`, when it has one: whatever the parser says then, this is why.
fn indenting_tab(text: &str, at: usize) -> Option<usize> {
    let (start, _) = line_of(text, at);
    // The parser may have noticed only at the next line.
    let (before, _) = line_of(text, start.saturating_sub(1));
    [start, before].into_iter().find_map(|start| {
        let line = text[start..].lines().next().unwrap_or_default();
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        line[..indent].find('\t').map(|tab| start + tab)
    })
}
