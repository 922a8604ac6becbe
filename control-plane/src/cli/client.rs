//! A connection to the control plane's operator socket.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};
use weir_config::pb::operator_client::OperatorClient;

use super::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn connect(control_plane: &str) -> Result<OperatorClient<Channel>, Failure> {
    let Some(path) = control_plane.strip_prefix("unix:") else {
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
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| {
        let mut reason: &dyn std::error::Error = &error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        Failure::Unreachable(format!(
            "no control plane answers at {}: {reason}\n  Give its --operator-socket as --control-plane unix:PATH or WEIR_CONTROL_PLANE.",
            path.display()
        ))
    })?;
    Ok(OperatorClient::new(channel))
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
