//! `weir.mesh.v1.Operator`: what the command line asks, over a unix socket that only its owner may open.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use weir_config::pb;
use weir_config::resource::ObjectName;

use crate::breakers::Breakers;
use crate::forced::{self, ForceError, Refusal};
use crate::journal::{Event, Journal, KINDS, StoreError};
use crate::kubernetes::peers::Others;
use crate::mesh::Mesh;
use crate::proxies::Proxies;
use crate::questions::Questions;

/// A header of answers that are about sidecars, of which a control plane knows its own: the pods of the others.
pub const OTHERS_HEADER: &str = "weir-other-control-planes";

/// Facts read from the journal at a time.
const BATCH: usize = 256;

#[derive(Clone)]
pub struct OperatorServer {
    pub mesh: Mesh,
    pub journal: Journal,
    pub proxies: Proxies,
    pub breakers: Breakers,
    pub questions: Questions,
    pub others: Others,
    /// Turns true when the control plane stops.
    pub stopping: watch::Receiver<bool>,
}

impl OperatorServer {
    fn answer<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let others = self.others.pods().join(",");
        if !others.is_empty() {
            let others = others.parse().expect("names of pods are ASCII");
            response.metadata_mut().insert(OTHERS_HEADER, others);
        }
        response
    }
}

/// Takes the place of a socket that nobody listens on any more, and of nothing else.
pub async fn bind(path: &Path) -> io::Result<UnixListener> {
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another control plane listens there",
        ));
    }
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this is a file, not a socket",
            ));
        }
        Err(_) => {}
    }
    // Made under a name that nobody knows, so that there is no moment in which others could open it.
    let private = path.with_extension(format!("{:016x}", fastrand::u64(..)));
    let listener = UnixListener::bind(&private)?;
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&private, path)?;
    Ok(listener)
}

#[tonic::async_trait]
impl pb::operator_server::Operator for OperatorServer {
    type EventsStream = Pin<Box<dyn Stream<Item = Result<pb::Event, Status>> + Send>>;

    async fn events(
        &self,
        request: Request<pb::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        if let Some(unknown) = request
            .kinds
            .iter()
            .find(|kind| !KINDS.contains(&kind.as_str()))
        {
            let known = KINDS.join(", ");
            return Err(Status::invalid_argument(format!(
                "there is no kind {unknown}; known: {known}"
            )));
        }
        // A reader that is slow makes this task wait, not the journal.
        let (events, stream) = mpsc::channel(BATCH);
        let (journal, mut stopping) = (self.journal.clone(), self.stopping.clone());
        tokio::spawn(async move {
            let last_word = tokio::select! {
                told = tell(journal, request, &events) => told.map_err(|error| Status::data_loss(error.to_string())),
                _ = stopping.wait_for(|stopping| *stopping) => Err(Status::unavailable("it stops")),
            };
            if let Err(status) = last_word {
                let _ = events.send(Err(status)).await;
            }
        });
        let stream: Self::EventsStream = Box::pin(ReceiverStream::new(stream));
        Ok(self.answer(stream))
    }

    async fn proxies(
        &self,
        _: Request<pb::ProxiesRequest>,
    ) -> Result<Response<pb::ProxiesResponse>, Status> {
        Ok(self.answer(pb::ProxiesResponse {
            version: self.mesh.version(),
            proxies: self.proxies.rows(),
        }))
    }

    async fn breakers(
        &self,
        _: Request<pb::BreakersRequest>,
    ) -> Result<Response<pb::BreakersResponse>, Status> {
        Ok(self.answer(pb::BreakersResponse {
            breakers: self.breakers.rows(),
        }))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let id = request.into_inner().request_id;
        let connected = self.proxies.connected_pods();
        let answers = self.questions.ask(&id, connected).await.ok_or_else(|| {
            Status::invalid_argument("an id has 1 to 128 letters, digits or signs, and no spaces")
        })?;
        let told = answers.told.into_iter();
        Ok(self.answer(pb::ExplainResponse {
            told: told
                .map(|(pod, records_json)| pb::Told {
                    pod: pod.to_string(),
                    records_json,
                })
                .collect(),
            asked: u32::try_from(answers.asked).unwrap_or(u32::MAX),
            silent: answers.silent.iter().map(ObjectName::to_string).collect(),
        }))
    }

    async fn policy(
        &self,
        request: Request<pb::PolicyRequest>,
    ) -> Result<Response<pb::PolicyResponse>, Status> {
        let request = request.into_inner();
        let pod = ObjectName::new(&request.pod_namespace, &request.pod_name);
        let (version, values) = self
            .mesh
            .effective(&pod)
            .ok_or_else(|| Status::not_found(format!("there is no pod {pod}")))?;
        Ok(Response::new(pb::PolicyResponse { version, values }))
    }

    async fn force_breaker(
        &self,
        request: Request<pb::ForceBreakerRequest>,
    ) -> Result<Response<pb::ForceBreakerResponse>, Status> {
        let request = request.into_inner();
        let forced = forced::force(&request, &self.mesh, &self.journal).await;
        forced.map(Response::new).map_err(|error| match error {
            ForceError::Refused(Refusal::Unknown(_)) => Status::not_found(error.to_string()),
            ForceError::Refused(_) => Status::invalid_argument(error.to_string()),
            ForceError::Journal(_) => Status::data_loss(error.to_string()),
        })
    }
}

type Outgoing = mpsc::Sender<Result<pb::Event, Status>>;

async fn tell(
    journal: Journal,
    request: pb::EventsRequest,
    events: &Outgoing,
) -> Result<(), StoreError> {
    let from = tell_past(&journal, &request, events).await?;
    match request.follow {
        true => tell_future(&journal, &request, from, events).await,
        false => Ok(()),
    }
}

/// What is there: all of it, or the newest of it. The number that comes next.
async fn tell_past(
    journal: &Journal,
    request: &pb::EventsRequest,
    events: &Outgoing,
) -> Result<u64, StoreError> {
    let end = *journal.watch().borrow();
    let last = request.last as usize;
    let mut from = request.from_seq;
    if last > 0 && request.kinds.is_empty() {
        from = from.max(end.saturating_sub(last as u64));
    }
    let mut newest: VecDeque<Event> = VecDeque::new();
    while from < end {
        let batch = read(journal, from).await?;
        let Some(read_to) = batch.last().map(|event| event.seq) else {
            break;
        };
        from = read_to + 1;
        let wanted = batch.into_iter().filter(|event| is_wanted(event, request));
        if last == 0 {
            send(wanted, events).await;
            continue;
        }
        for event in wanted {
            newest.push_back(event);
            if newest.len() > last {
                newest.pop_front();
            }
        }
    }
    send(newest, events).await;
    Ok(from)
}

/// What comes, until nobody listens.
async fn tell_future(
    journal: &Journal,
    request: &pb::EventsRequest,
    mut from: u64,
    events: &Outgoing,
) -> Result<(), StoreError> {
    let mut synced = journal.watch();
    loop {
        synced.borrow_and_update();
        let batch = read(journal, from).await?;
        if let Some(newest) = batch.last() {
            from = newest.seq + 1;
            send(
                batch.into_iter().filter(|event| is_wanted(event, request)),
                events,
            )
            .await;
            continue;
        }
        tokio::select! {
            () = events.closed() => return Ok(()),
            changed = synced.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

fn is_wanted(event: &Event, request: &pb::EventsRequest) -> bool {
    request.kinds.is_empty() || request.kinds.contains(&event.kind)
}

/// To a reader that is gone nothing is sent, which the caller notices soon enough.
async fn send(batch: impl IntoIterator<Item = Event>, events: &Outgoing) {
    for event in batch {
        if events.send(Ok(message(event))).await.is_err() {
            return;
        }
    }
}

async fn read(journal: &Journal, from: u64) -> Result<Vec<Event>, StoreError> {
    let journal = journal.clone();
    let read = tokio::task::spawn_blocking(move || journal.read(from, BATCH)).await;
    read.expect("reading the journal does not panic")
}

fn message(event: Event) -> pb::Event {
    pb::Event {
        seq: event.seq,
        at_ms: event.at_ms,
        kind: event.kind,
        subject: event.subject,
        reporter: event.reporter,
        message: event.message,
        details_json: event.details.to_string(),
    }
}
