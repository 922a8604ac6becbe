//! A connection to the control plane's operator socket.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Response, Status};
use weir_config::pb::operator_client::OperatorClient;

use super::Failure;
use crate::operator::OTHERS_HEADER;
use crate::spiffe::is_name;

/// Where the charts have it, in the control plane's own pod.
pub(super) const DEFAULT: &str = "unix:/run/weir/operator.sock";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More than a control plane keeps: the breakers of all callers, with the longest texts that it takes.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(super) async fn connect(control_plane: &str) -> Result<OperatorClient<Channel>, Failure> {
    let path = control_plane.strip_prefix("unix:");
    let Some(path) = path.filter(|path| !path.is_empty()) else {
        return Err(Failure::Usage(format!(
            "--control-plane: expected unix:PATH, found {control_plane:?}"
        )));
    };
    let path = PathBuf::from(path);
    let socket = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // The name is never looked up: the connector knows where to go.
    let endpoint = Endpoint::from_static("http://weir").connect_timeout(CONNECT_TIMEOUT);
    let channel = endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|error| {
            let mut reason: &dyn std::error::Error = &error;
            while let Some(source) = reason.source() {
                reason = source;
            }
            let answer = format!("no control plane answers at {}: {reason}", path.display());
            let advice =
                "Give its --operator-socket as --control-plane unix:PATH or WEIR_CONTROL_PLANE.";
            Failure::Unreachable(match control_plane {
                DEFAULT => format!(
                    "{answer}\n  On Kubernetes ask in its own pod:\n    {}\n  Elsewhere: {advice}",
                    in_its_pod()
                ),
                _ => format!("{answer}\n  {advice}"),
            })
        })?;
    Ok(OperatorClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// The same question, where it is answered.
fn in_its_pod() -> String {
    at("weir-system", "deploy/weir-control-plane")
}

fn at(namespace: &str, pod: &str) -> String {
    let asked = std::env::args_os().skip(1);
    let words: Vec<String> = asked
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    format!(
        "kubectl -n {namespace} exec {pod} -- weir {}",
        quoted(&words)
    )
}

/// The pods of control planes that were not asked, each of which knows its own sidecars only.
pub(super) fn unasked<T>(answer: &Response<T>) -> Vec<String> {
    let said = answer.metadata().get(OTHERS_HEADER);
    let said = said.and_then(|said| said.to_str().ok()).unwrap_or_default();
    let pods = said.split(',').filter(|pod| is_name(pod));
    pods.map(str::to_owned).collect()
}

/// Beside the answer, so that nobody takes it for the whole.
pub(super) fn tell_of(unasked: &[String]) {
    if unasked.is_empty() {
        return;
    }
    eprintln!(
        "asked 1 of {} control planes: the others know of other sidecars",
        unasked.len() + 1
    );
    // It is asked in a control plane's pod, which knows it.
    let namespace = std::env::var("WEIR_NAMESPACE");
    let namespace = namespace.unwrap_or_else(|_| "weir-system".to_owned());
    for pod in unasked {
        eprintln!("  {}", at(&namespace, pod));
    }
}

/// As a shell takes them for the same words.
fn quoted(words: &[String]) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    let quoted = words.iter().map(|word| {
        if !word.is_empty() && word.chars().all(is_plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

pub(super) fn failure(status: Status) -> Failure {
    match status.code() {
        Code::Unavailable => {
            Failure::Unreachable(format!("the control plane went away: {}", status.message()))
        }
        Code::InvalidArgument => Failure::Usage(status.message().to_owned()),
        _ => Failure::Failed(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_quoted_words_for_the_same() {
        let words = ["breakers", "--service", "a/b:1", "it's", "$(x)", ""];
        let words: Vec<String> = words.map(str::to_owned).into();
        assert_eq!(
            quoted(&words),
            r"breakers --service a/b:1 'it'\''s' '$(x)' ''"
        );
    }
}
