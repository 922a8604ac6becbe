//! Patterns of the Gateway API: RE2's syntax as far as regex-lite has it, always of the whole text, bounded in size.
//!
//! Matching takes time in proportion to the pattern times the text, whatever either is; both are bounded here. Letters are
//! compared as they are; `\d`, `\w` and `\s` mean ASCII.

use regex_lite::{Regex, RegexBuilder};

const PATTERN_CHARS_MAX: usize = 512;
/// Of a compiled pattern: counted repetitions make a short pattern long.
const COMPILED_BYTES_MAX: usize = 64 * 1024;
const NESTED_MAX: u32 = 32;
/// A text that is longer matches no pattern.
const TEXT_BYTES_MAX: usize = 4096;

#[derive(Clone, Debug)]
pub struct Pattern(Regex);

/// Of all routes of the Gateway API that one caller meets. Each takes up to 64 KiB, and whoever may write routes writes them
/// for others' sidecars.
pub const PATTERNS_MAX: usize = 256;

impl Pattern {
    pub fn new(pattern: &str) -> Result<Self, String> {
        if pattern.chars().count() > PATTERN_CHARS_MAX {
            return Err(format!("it is longer than {PATTERN_CHARS_MAX} characters"));
        }
        // By itself first: an unbalanced bracket must not find its partner in what is put around it.
        let build = |pattern: &str| {
            let mut builder = RegexBuilder::new(pattern);
            builder
                .size_limit(COMPILED_BYTES_MAX)
                .nest_limit(NESTED_MAX);
            builder
                .build()
                .map_err(|error| why(&error.to_string()).to_owned())
        };
        build(pattern)?;
        build(&format!("^(?:{pattern})$")).map(Self)
    }

    pub fn matches(&self, text: &str) -> bool {
        text.len() <= TEXT_BYTES_MAX && self.0.is_match(text)
    }
}

/// What is wrong with a pattern, in our words: by the words of what reads it, of which the rest is one sort of slip each.
fn why(theirs: &str) -> &'static str {
    const WORDS: [(&str, &str); 12] = [
        ("open group", "a `(` is never closed"),
        ("closing ')' without", "a `)` closes nothing"),
        ("end of pattern", "it ends in the middle of something"),
        (
            "look-around",
            "it looks ahead or behind, which this syntax cannot",
        ),
        (
            "backreferences",
            "it refers back to a group, which this syntax cannot",
        ),
        ("Unicode", "it has a class of Unicode, such as \\p{L}"),
        (
            "character class",
            "what is between `[` and `]` is no class of characters",
        ),
        (
            "repetition",
            "there is nothing for a `*`, `+`, `?` or `{` to repeat, or no number to repeat it by",
        ),
        (
            "escape",
            "a backslash stands before what it has no meaning for",
        ),
        ("flag", "it has a flag that is not known, or an empty one"),
        ("nesting", "its groups are nested too deep"),
        ("size limit", "it becomes too large: repeat less by number"),
    ];
    let known = WORDS.iter().find(|(part, _)| theirs.contains(part));
    known.map_or("a part of it cannot be read", |(_, ours)| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_the_whole_text() {
        let pattern = Pattern::new("/a|/b[0-9]+").expect("a pattern");
        for (text, matches) in [("/a", true), ("/b12", true), ("/ab", false), ("x/a", false)] {
            assert_eq!(pattern.matches(text), matches, "{text}");
        }
        assert!(!pattern.matches("/a\n"), "a line's end is no text's end");
    }

    #[test]
    fn what_would_cost_too_much_or_means_nothing_is_refused() {
        let long = "a".repeat(PATTERN_CHARS_MAX + 1);
        let deep = format!("{}{}", "(".repeat(100), ")".repeat(100));
        for pattern in ["(", "a)(b", "((a{100}){100}){100}", &long, &deep] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
        let any = Pattern::new(".*").expect("a pattern");
        assert!(!any.matches(&"a".repeat(TEXT_BYTES_MAX + 1)));
    }
}
