//! kubectl, asked for JSON.

use std::process::Command;

use serde_json::Value;

pub(super) struct Kubectl {
    program: String,
    context: Vec<String>,
}

impl Kubectl {
    pub(super) fn new(program: &str, context: Option<&str>) -> Self {
        let context = context.map(|name| vec!["--context".to_owned(), name.to_owned()]);
        Self {
            program: program.to_owned(),
            context: context.unwrap_or_default(),
        }
    }

    pub(super) fn ask(&self, arguments: &[&str]) -> Result<Value, String> {
        let (is_fine, out, errors) = self.run(arguments)?;
        if !is_fine {
            return Err(format!("kubectl {}: {errors}", arguments.join(" ")));
        }
        serde_json::from_str(&out)
            .map_err(|error| format!("kubectl {}: no JSON: {error}", arguments.join(" ")))
    }

    /// What there is, which may be nothing.
    pub(super) fn list(&self, what: &[&str]) -> Result<Vec<Value>, String> {
        let mut asked = vec!["get"];
        asked.extend(what);
        asked.extend(["--ignore-not-found", "-o", "json"]);
        let (is_fine, out, errors) = self.run(&asked)?;
        match (is_fine, out.trim()) {
            (false, _) => Err(format!("kubectl {}: {errors}", asked.join(" "))),
            (true, "") => Ok(Vec::new()),
            (true, text) => {
                let mut found: Value = serde_json::from_str(text)
                    .map_err(|error| format!("kubectl {}: no JSON: {error}", asked.join(" ")))?;
                Ok(match found["items"].take() {
                    Value::Array(items) => items,
                    _ => vec![found],
                })
            }
        }
    }

    /// Whether the caller may; `kubectl auth can-i` says no by its exit code.
    pub(super) fn may(&self, verb: &str, what: &[&str]) -> Result<bool, String> {
        let mut asked = vec!["auth", "can-i", verb];
        asked.extend(what);
        let (is_fine, out, errors) = self.run(&asked)?;
        match (is_fine, out.trim()) {
            (true, _) => Ok(true),
            (false, no) if no.starts_with("no") => Ok(false),
            (false, _) => Err(format!("kubectl {}: {errors}", asked.join(" "))),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<(bool, String, String), String> {
        let output = Command::new(&self.program)
            .args(&self.context)
            .args(arguments)
            .arg("--request-timeout=20s")
            .output()
            .map_err(|error| format!("{}: {error}; --kubectl says where it is", self.program))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok((
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }
}
