//! Steers a running lab from outside, over its control socket.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::control::{Answer, Request, Status};
use crate::error::{Doing, Error, Result};
use crate::server::socket_in;
use crate::wire::{self, Inbox};

/// Every request has a connection of its own, so requests may overlap.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// What a command is run with.
#[derive(Clone, Debug, Default)]
pub struct Command {
    /// A pod; on the node when absent.
    pub target: Option<String>,
    /// A container of the pod; its first app when absent.
    pub container: Option<String>,
    pub argv: Vec<String>,
    /// On the node: the whole environment. In a pod: what is added to the container's.
    pub env: Vec<(String, String)>,
    pub folder: Option<PathBuf>,
}

/// A command that runs in the lab. Dropped: it is killed.
#[derive(Debug)]
pub struct Running {
    stream: UnixStream,
}

impl Client {
    /// For the run in this directory.
    pub fn new(folder: &Path) -> Self {
        Self {
            socket: socket_in(folder),
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        UnixStream::connect(&self.socket)
            .doing(|| format!("reach the lab at {}", self.socket.display()))
    }

    /// One request, its answer, and the descriptors that came with it.
    pub fn ask(&self, request: &Request) -> Result<(Value, Vec<OwnedFd>)> {
        let stream = self.connect()?;
        wire::send(&stream, request, &[]).doing(|| "ask the lab".to_owned())?;
        answer(&stream)
    }

    pub fn status(&self) -> Result<Status> {
        let (value, _) = self.ask(&Request::Ps)?;
        serde_json::from_value(value)
            .map_err(|error| Error::Lab(format!("a strange answer: {error}")))
    }

    /// Waits until every pod is ready, or says which are not.
    pub fn wait_ready(&self, patience: Duration) -> Result<()> {
        let seconds = patience.as_secs();
        self.ask(&Request::Wait { seconds }).map(drop)
    }

    /// A TCP connection made inside the lab, from a pod or (without one) from the node. `to` is
    /// `IP:PORT`, `SERVICE:PORT` or `POD:PORT`.
    pub fn dial(&self, from: Option<&str>, to: &str) -> Result<TcpStream> {
        let (_, descriptors) = self.ask(&Request::Dial {
            from: from.map(str::to_owned),
            to: to.to_owned(),
        })?;
        let socket = descriptors.into_iter().next();
        socket
            .map(TcpStream::from)
            .ok_or_else(|| Error::Lab("the lab answered without a connection".to_owned()))
    }

    /// Starts a command with these streams.
    pub fn run(&self, command: Command, streams: [&dyn AsFd; 3]) -> Result<Running> {
        let stream = self.connect()?;
        let request = Request::Exec {
            target: command.target,
            container: command.container,
            argv: command.argv,
            env: command.env,
            folder: command.folder,
        };
        let beside = streams.map(|stream| stream.as_fd());
        wire::send(&stream, &request, &beside).doing(|| "ask the lab".to_owned())?;
        Ok(Running { stream })
    }
}

impl Running {
    /// The exit code, as a shell would give it: 128 and the signal for a command that was killed.
    pub fn wait(self) -> Result<i32> {
        let (status, _) = answer(&self.stream)?;
        let number = |field: &str| status[field].as_i64().and_then(|n| i32::try_from(n).ok());
        let by_signal = || number("signal").map(|signal| 128 + signal);
        number("code")
            .or_else(by_signal)
            .ok_or_else(|| Error::Lab(format!("a strange exit status: {status}")))
    }
}

fn answer(stream: &UnixStream) -> Result<(Value, Vec<OwnedFd>)> {
    let answer = Inbox::default().receive::<Answer>(stream);
    match answer {
        Ok(Some((Answer::Ok(value), descriptors))) => Ok((value, descriptors)),
        Ok(Some((Answer::Error(why), _))) => Err(Error::Request(why)),
        Ok(None) => Err(Error::Lab("the lab ended before it answered".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Err(Error::Lab("the lab ended before it answered".to_owned()))
        }
        Err(error) => Err(error).doing(|| "hear the lab's answer".to_owned()),
    }
}
