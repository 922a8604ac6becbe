//! Carries out requests that come in on the control socket.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::Notify;

use crate::container::{Container, Role};
use crate::control::{Answer, Request};
use crate::error::{Doing, Error, Result};
use crate::network::in_thread;
use crate::node::host_names;
use crate::pod::Pod;
use crate::sandbox::{self, Program, Streams};
use crate::supervisor::{FaultBetween, Supervisor};
use crate::target::Target;
use crate::wire::{self, Inbox};

/// How long a connection attempt on behalf of a client may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restarted pod may take before the next one is touched.
const READY_PATIENCE: Duration = Duration::from_secs(120);

pub struct Server {
    pub supervisor: Arc<Supervisor>,
    /// Told when somebody asked for the end.
    pub down: Arc<Notify>,
}

impl Server {
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            // An accept can fail for want of descriptors; the next client may have more luck.
            if let Ok((stream, _)) = listener.accept().await {
                let server = self.clone();
                tokio::spawn(async move {
                    // A client that hangs up in the middle needs no answer.
                    let _ = server.attend(stream).await;
                });
            } else {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    async fn attend(self: &Arc<Self>, stream: UnixStream) -> std::io::Result<()> {
        let mut inbox = Inbox::default();
        while let Some((request, descriptors)) = inbox.receive_async::<Request>(&stream).await? {
            let mut sent = None;
            let result = match request {
                Request::Exec { .. } => {
                    let run = self.exec(request, descriptors);
                    tokio::select! {
                        result = run => result,
                        // Clients do not talk while they wait: this is one that hangs up.
                        _ = inbox.receive_async::<Request>(&stream) => return Ok(()),
                    }
                }
                Request::Dial { from, to } => self.dial(from.as_deref(), &to).await.map(|socket| {
                    sent = Some(socket);
                    Value::Null
                }),
                // What has begun is brought to its end, whether or not somebody still listens.
                verb => {
                    let server = self.clone();
                    let verb = tokio::spawn(async move { server.carry_out(verb).await });
                    verb.await
                        .unwrap_or_else(|panic| Err(Error::Lab(panic.to_string())))
                }
            };
            let answer = match result {
                Ok(value) => Answer::Ok(value),
                Err(error) => Answer::Error(error.to_string()),
            };
            let beside: Vec<_> = sent.iter().map(AsFd::as_fd).collect();
            wire::send_async(&stream, &answer, &beside).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, request: Request) -> Result<Value> {
        let supervisor = &self.supervisor;
        match request {
            Request::Ps => {
                let status = serde_json::to_value(supervisor.status());
                return Ok(status.expect("a status is plain data"));
            }
            Request::Wait { seconds } => {
                supervisor.until_ready(Duration::from_secs(seconds)).await?;
            }
            Request::Kill { target, pod: true } => {
                let pods = supervisor.named(&target)?;
                pods.iter().for_each(|pod| pod.end(Duration::ZERO));
                for pod in pods {
                    supervisor.replace(&pod, Duration::ZERO).await?;
                }
            }
            Request::Kill { target, pod: false } => {
                self.signal(&target, Signal::KILL, true)?;
            }
            Request::Stop { target, app_only } => self.signal(&target, Signal::STOP, app_only)?,
            Request::Cont { target } => self.signal(&target, Signal::CONT, false)?,
            Request::Restart { target } => self.restart(&target).await?,
            Request::Scale { workload, replicas } => supervisor.scale(&workload, replicas).await?,
            Request::NetDrop { left, right } => {
                supervisor.named(&left)?;
                supervisor.named(&right)?;
                let parse = |text: &str| Target::parse(text).map_err(Error::Request);
                let fault = FaultBetween::Drop(parse(&left)?, parse(&right)?);
                supervisor.set_faults(|faults| faults.push(fault)).await?;
            }
            Request::NetLoss { percent, target } => {
                if percent > 100 {
                    let what = format!("{percent} is not a percentage");
                    return Err(Error::Request(what));
                }
                supervisor.named(&target)?;
                let fault =
                    FaultBetween::Loss(percent, Target::parse(&target).map_err(Error::Request)?);
                supervisor.set_faults(|faults| faults.push(fault)).await?;
            }
            Request::NetHeal => supervisor.set_faults(Vec::clear).await?,
            Request::Down => self.down.notify_one(),
            Request::Exec { .. } | Request::Dial { .. } => {
                unreachable!("handled where the descriptors are")
            }
        }
        Ok(Value::Null)
    }

    fn signal(&self, target: &str, signal: Signal, app_only: bool) -> Result<()> {
        let mut hit = 0;
        for pod in self.supervisor.named(target)? {
            for container in &pod.containers {
                let meant = match container.role {
                    Role::App => true,
                    Role::Sidecar | Role::Init => !app_only,
                };
                hit += usize::from(meant && container.signal(signal));
            }
        }
        if hit == 0 {
            return Err(Error::Request(format!("nothing runs in {target}")));
        }
        Ok(())
    }

    async fn restart(&self, target: &str) -> Result<()> {
        for pod in self.supervisor.named(target)? {
            let grace = Duration::from_secs(pod.spec.grace_seconds());
            let fresh = self.supervisor.replace(&pod, grace).await?;
            let deadline = tokio::time::Instant::now() + READY_PATIENCE;
            while !fresh.is_ready() && fresh.ending().is_none() {
                if tokio::time::Instant::now() > deadline {
                    let why = fresh.why_not_ready();
                    let what = format!("{} is not ready after its restart: {why}", fresh.name);
                    return Err(Error::Lab(what));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn exec(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<Value> {
        let Request::Exec {
            target,
            container,
            argv,
            env,
            folder,
        } = request
        else {
            unreachable!("called for Exec only")
        };
        let streams: [OwnedFd; 3] = descriptors
            .try_into()
            .map_err(|_| Error::Request("exec needs stdin, stdout and stderr".to_owned()))?;
        let [stdin, stdout, stderr] = streams.map(std::process::Stdio::from);
        let streams = Streams {
            stdin,
            stdout,
            stderr,
        };
        let child = match target {
            Some(target) => {
                let pod = self.one(&target)?;
                let container = container_of(&pod, container.as_deref())?;
                let mut words = vec!["env".to_owned()];
                words.extend(env.iter().map(|(name, value)| format!("{name}={value}")));
                words.extend(argv);
                pod.start_in(container, &words, streams)
                    .map_err(Error::Request)?
            }
            None => {
                let program = Program {
                    argv,
                    env,
                    folder,
                    user: None,
                    no_new_privileges: false,
                };
                sandbox::start(&program, streams).doing(|| "run it".to_owned())?
            }
        };
        let status = Leash(child)
            .0
            .wait()
            .await
            .doing(|| "wait for it".to_owned())?;
        Ok(json!({"code": status.code(), "signal": status.signal()}))
    }

    fn one(&self, target: &str) -> Result<Arc<Pod>> {
        // Of several replicas the first will do.
        Ok(self.supervisor.named(target)?.swap_remove(0))
    }

    async fn dial(&self, from: Option<&str>, to: &str) -> Result<OwnedFd> {
        let address = self.resolve(to)?;
        let door = match from {
            Some(pod) => Some(self.one(pod)?.door()),
            None => None,
        };
        let dial = tokio::task::spawn_blocking(move || {
            in_thread(move || {
                if let Some(door) = door {
                    door.enter()?;
                }
                TcpStream::connect_timeout(&address, DIAL_TIMEOUT)
            })
        });
        let stream = dial.await.expect("dialing does not panic");
        Ok(stream.doing(|| format!("connect to {to}"))?.into())
    }

    /// `IP:PORT`, `SERVICE:PORT` under any of its names, or `POD:PORT`.
    fn resolve(&self, to: &str) -> Result<SocketAddr> {
        if let Ok(address) = to.parse() {
            return Ok(address);
        }
        let wrong = || Error::Request(format!("`{to}` is not HOST:PORT"));
        let (host, port) = to.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        for status in self.supervisor.status().services {
            let names = host_names(&status.name, &status.namespace);
            if let Some((first, _)) = status.ports.first()
                && names.split(' ').any(|name| name == host)
            {
                return Ok(SocketAddr::new(first.ip(), port));
            }
        }
        Ok(SocketAddr::new(self.one(host)?.address(), port))
    }
}

fn container_of<'a>(pod: &'a Pod, name: Option<&str>) -> Result<&'a Container> {
    let mut all = pod.containers.iter();
    let found = match name {
        Some(name) => all.find(|one| one.spec.name == name),
        None => all.find(|one| one.role == Role::App),
    };
    found.map(AsRef::as_ref).ok_or_else(|| {
        let name = name.unwrap_or("app");
        Error::Request(format!("{} has no container {name}", pod.name))
    })
}

/// A command that dies with the client that asked for it.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let pid = self
            .0
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// Where the control socket of a run is.
pub fn socket_in(folder: &std::path::Path) -> PathBuf {
    folder.join("control.sock")
}
