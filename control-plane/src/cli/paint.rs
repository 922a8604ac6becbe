//! Colours, where somebody sees them.

use std::io::IsTerminal;

pub(super) fn error(text: &str) -> String {
    painted(text, "1;31", std::io::stderr().is_terminal())
}

/// By what a state or a kind of fact means to whoever is on call.
pub(super) fn by_meaning(text: &str) -> String {
    let word = text.trim();
    let bad = ["Open", "no", "refused"].contains(&word)
        || ["Rejected", "Refused", "Opened", "Ejected", "Disconnected"]
            .iter()
            .any(|end| word.ends_with(end));
    let watchful = ["HalfOpen", "Ramping", "draining", "behind"].contains(&word)
        || ["HalfOpened", "Probed", "Draining", "Readmitted"]
            .iter()
            .any(|end| word.ends_with(end));
    let good = ["Closed", "yes"].contains(&word)
        || ["Accepted", "Acknowledged", "Restored"]
            .iter()
            .any(|end| word.ends_with(end));
    let code = match (bad, watchful, good) {
        (true, _, _) => "31",
        (_, true, _) => "33",
        (_, _, true) => "32",
        _ => return text.to_owned(),
    };
    painted(text, code, std::io::stdout().is_terminal())
}

pub(super) fn to_stdout(text: &str, code: &str) -> String {
    painted(text, code, std::io::stdout().is_terminal())
}

fn painted(text: &str, code: &str, seen: bool) -> String {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if seen && wanted {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
