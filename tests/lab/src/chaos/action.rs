//! What can be done to the shop, and how it is taken back.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::backlog::Cancellations;
use super::knobs::{self, Knobs};
use super::stage::Stage;
use crate::error::{Error, Result};

/// A restart of several pods, one after the other, each with its grace.
const PATIENCE: Duration = Duration::from_secs(60);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const FOLDERLESS: &str = "a policy is named by its file, without a folder";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub enum Action {
    /// The service's own knobs, in each of its pods; taken back: all at nought.
    Knobs(Turn),
    /// SIGSTOP to everything in these pods; taken back: SIGCONT.
    Freeze(String),
    /// SIGKILL to the apps of these pods; supervision starts them again.
    Kill(String),
    /// These pods end gracefully, one after the other, and others take their place.
    Restart(String),
    /// No pod of this workload is left; taken back: as many as there were.
    Remove(String),
    /// Nothing passes between the two sets of pods; taken back: everything does.
    Drop(Between),
    /// So many percent of the packets from and to these pods are lost; taken back: none.
    Loss(Loss),
    /// A policy file takes the place of the shop's of that name; taken back when visitors have gone.
    Policy(Edit),
    /// A FaultPolicy is applied, by which the mesh itself makes something fail; taken back: it is deleted.
    Inject(String),
    /// A GET inside a pod; taken back: another one.
    Call(Call),
    /// The order log is told facts about orders of nobody: a backlog for whoever follows it slowly.
    Cancel(Cancellations),
    /// Nothing is done, only said: what fails is how the shop is set up.
    Note(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    pub service: String,
    pub to: Knobs,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    pub one: String,
    pub other: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    pub pods: String,
    pub percent: u8,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// In `k8s/policies`.
    pub file: String,
    /// In `chaos/policies`.
    pub becomes: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Call {
    pub pod: String,
    pub port: u16,
    pub path: String,
    pub take_back: Option<String>,
}

/// How something that was done is taken back.
#[derive(Debug)]
pub enum Undo {
    Knobs(String),
    Cont(String),
    Scale(String, u32),
    Heal,
    Call(Call),
    Policy { file: String, was: String },
    Delete(String),
}

impl Action {
    pub(super) fn mistake(&self) -> Option<String> {
        match self {
            Self::Knobs(turn) => turn.to.mistake(),
            Self::Cancel(orders) => orders.mistake(),
            Self::Loss(loss) if loss.percent > 100 => {
                Some("of a hundred packets a hundred can be lost".into())
            }
            Self::Policy(edit) if edit.file.contains('/') || edit.becomes.contains('/') => {
                Some(FOLDERLESS.into())
            }
            Self::Inject(file) if file.contains('/') => Some(FOLDERLESS.into()),
            _ => None,
        }
    }

    /// For the log of the run.
    pub fn describe(&self) -> String {
        match self {
            Self::Knobs(turn) => format!("{}: {}", turn.service, turn.to.describe()),
            Self::Freeze(pods) => format!("{pods} is frozen"),
            Self::Kill(pods) => format!("{pods} is killed"),
            Self::Restart(pods) => format!("{pods} is restarted"),
            Self::Remove(workload) => format!("{workload} is gone"),
            Self::Drop(between) => format!("{} ↮ {}", between.one, between.other),
            Self::Loss(loss) => format!("{} loses {} % of its packets", loss.pods, loss.percent),
            Self::Policy(edit) => format!("{} becomes {}", edit.file, edit.becomes),
            Self::Inject(file) => format!("{file} is applied"),
            Self::Call(call) => format!("{}: GET {}", call.pod, call.path),
            Self::Cancel(orders) => orders.describe(),
            Self::Note(what) => what.clone(),
        }
    }

    /// Does it; returns when it is done.
    pub async fn begin(&self, stage: &Stage) -> Result<Option<Undo>> {
        match self {
            Self::Knobs(turn) => {
                turn_all(stage, &turn.service, turn.to).await?;
                Ok(Some(Undo::Knobs(turn.service.clone())))
            }
            Self::Call(call) => {
                get(stage, &call.pod, call.port, &call.path).await?;
                let back = call.take_back.clone();
                Ok(back.map(|path| {
                    Undo::Call(Call {
                        path,
                        ..call.clone()
                    })
                }))
            }
            Self::Policy(edit) => {
                let was = stage.edit_policy(&edit.file, &edit.becomes)?;
                let file = edit.file.clone();
                Ok(Some(Undo::Policy { file, was }))
            }
            Self::Inject(file) => {
                stage.apply_fault(file)?;
                Ok(Some(Undo::Delete(file.clone())))
            }
            Self::Cancel(orders) => orders.tell(stage).await.map(|()| None),
            Self::Note(_) => Ok(None),
            other => {
                let (action, stage) = (other.clone(), stage.clone());
                tokio::task::spawn_blocking(move || action.steer(&stage))
                    .await
                    .expect("steering a lab does not panic")
            }
        }
    }

    /// What the lab itself does.
    fn steer(&self, stage: &Stage) -> Result<Option<Undo>> {
        let shop = stage.shop();
        let lab = shop.lab();
        match self {
            Self::Freeze(pods) => {
                lab.stop(pods)?;
                return Ok(Some(Undo::Cont(pods.clone())));
            }
            Self::Kill(pods) => match lab.kill(pods) {
                // Killed a moment ago, and not started again yet.
                Err(Error::Request(why)) if why.starts_with("nothing runs") => {}
                other => other?,
            },
            Self::Restart(pods) => lab.restart(pods)?,
            Self::Remove(workload) => {
                let pods = lab.status()?.pods;
                let count = pods.iter().filter(|pod| pod.workload == *workload).count();
                // Killed first: what ends gracefully says good-bye.
                lab.kill(workload)?;
                lab.scale(workload, 0)?;
                let count = u32::try_from(count).expect("pods can be counted");
                return Ok(Some(Undo::Scale(workload.clone(), count)));
            }
            Self::Drop(between) => {
                lab.net_drop(&between.one, &between.other)?;
                return Ok(Some(Undo::Heal));
            }
            Self::Loss(loss) => {
                lab.net_loss(loss.percent, &loss.pods)?;
                return Ok(Some(Undo::Heal));
            }
            Self::Knobs(_)
            | Self::Policy(_)
            | Self::Inject(_)
            | Self::Call(_)
            | Self::Cancel(_)
            | Self::Note(_) => unreachable!("not the lab's business"),
        }
        Ok(None)
    }
}

impl Undo {
    /// Whether it is to be seen how the shop does with it when nothing fails any more.
    pub fn outlasts_the_fault(&self) -> bool {
        matches!(self, Self::Policy { .. })
    }

    pub async fn carry_out(self, stage: &Stage) -> Result<()> {
        match self {
            Self::Knobs(service) => turn_all(stage, &service, Knobs::default()).await,
            Self::Call(call) => get(stage, &call.pod, call.port, &call.path).await.map(drop),
            Self::Policy { file, was } => stage.write_policy(&file, &was),
            Self::Delete(file) => stage.delete_policy(&file),
            other => {
                let stage = stage.clone();
                let steer = move || {
                    let shop = stage.shop();
                    match other {
                        Self::Cont(pods) => shop.lab().cont(&pods),
                        Self::Scale(workload, count) => shop.lab().scale(&workload, count),
                        Self::Heal => shop.lab().net_heal(),
                        Self::Knobs(_) | Self::Call(_) | Self::Policy { .. } | Self::Delete(_) => {
                            unreachable!("done above")
                        }
                    }
                };
                tokio::task::spawn_blocking(steer)
                    .await
                    .expect("steering a lab does not panic")
            }
        }
    }
}

async fn turn_all(stage: &Stage, service: &str, to: Knobs) -> Result<()> {
    let port = stage.chaos_port(service)?;
    let until = Instant::now() + PATIENCE;
    for pod in stage.pods_named(service)? {
        knobs::turn(stage.shop().lab().client(), &pod, port, to, until).await?;
    }
    Ok(())
}

/// The body of the answer to a GET inside a pod, which has to succeed.
pub(super) async fn get(stage: &Stage, pod: &str, port: u16, path: &str) -> Result<String> {
    use std::io::{Read, Write};
    let request = format!("GET {path} HTTP/1.1\r\nhost: {pod}\r\nconnection: close\r\n\r\n");
    let client = stage.shop().lab().client().clone();
    let from = pod.to_owned();
    let asked = tokio::task::spawn_blocking(move || -> Result<String> {
        let mut stream = client.dial(Some(&from), &format!("127.0.0.1:{port}"))?;
        let mut answer = String::new();
        let mut exchange = || {
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer).map(drop)
        };
        exchange().map_err(|error| Error::Request(format!("{from}: {error}")))?;
        Ok(answer)
    });
    let answer = asked.await.expect("asking does not panic")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.contains(" 200 ") {
        true => Ok(body.to_owned()),
        false => Err(Error::Request(format!("{pod}: GET {path}: {status}"))),
    }
}
