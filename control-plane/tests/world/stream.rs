//! A sidecar's side of the push protocol.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use weir_config::pb;
use weir_config::pb::from_proxy::Message;
use weir_config::pb::mesh_client::MeshClient;
use weir_config::snapshot;

use super::PATIENCE;

/// A sidecar's end of its stream.
pub struct Stream {
    outgoing: mpsc::Sender<pb::FromProxy>,
    incoming: Streaming<pb::ToProxy>,
    /// What it has put in force, by service and address.
    pub endpoints: HashMap<String, HashMap<String, pb::Endpoint>>,
    pub trust_bundle: usize,
    pub workload: Option<snapshot::Workload>,
}

pub fn hello(namespace: &str, pod: &str) -> Message {
    Message::Hello(pb::Hello {
        pod_namespace: namespace.to_owned(),
        pod_name: pod.to_owned(),
        proxy_version: "test".to_owned(),
    })
}

impl Stream {
    pub async fn open(channel: Channel, first: Message) -> Result<Self, Status> {
        let (outgoing, receiver) = mpsc::channel(1024);
        outgoing
            .send(pb::FromProxy {
                message: Some(first),
            })
            .await
            .expect("room");
        let incoming = MeshClient::new(channel)
            .connect(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Self {
            outgoing,
            incoming,
            endpoints: HashMap::new(),
            trust_bundle: 0,
            workload: None,
        })
    }

    pub async fn send(&self, message: Message) {
        self.outgoing
            .send(pb::FromProxy {
                message: Some(message),
            })
            .await
            .expect("the stream lives");
    }

    pub async fn subscribe(&self, address: &str) {
        let address = address.to_owned();
        self.send(Message::Subscribe(pb::Subscribe { address }))
            .await;
    }

    pub async fn fact(&self, fact: pb::fact::Fact) {
        let at_ms = weir_control_plane::journal::now_ms();
        self.send(Message::Fact(pb::Fact {
            at_ms,
            fact: Some(fact),
        }))
        .await;
    }

    /// The next push; a stream that ends instead is a failure.
    pub async fn push(&mut self) -> pb::ToProxy {
        let push = tokio::time::timeout(PATIENCE, self.incoming.message())
            .await
            .expect("a push in time");
        push.expect("the stream lives").expect("the stream goes on")
    }

    /// The next push, however long it takes; `None`: the stream is over.
    pub async fn maybe_push(&mut self) -> Option<pb::ToProxy> {
        self.incoming.message().await.ok().flatten()
    }

    /// How the stream ends.
    pub async fn end(&mut self) -> Status {
        let end = async {
            loop {
                match self.incoming.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Status::ok(""),
                    Err(status) => return status,
                }
            }
        };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("the stream ends in time")
    }

    /// Whether nothing comes for a while.
    pub async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(700), self.incoming.message())
            .await
            .is_err()
    }

    pub async fn ack(&mut self, push: &pb::ToProxy) {
        self.apply(push);
        let (nonce, version) = (push.nonce, push.version);
        self.send(Message::Ack(pb::Ack { nonce, version })).await;
    }

    pub async fn nack(&self, push: &pb::ToProxy, reason: &str) {
        let (nonce, version, reason) = (push.nonce, push.version, reason.to_owned());
        self.send(Message::Nack(pb::Nack {
            nonce,
            version,
            reason,
        }))
        .await;
    }

    /// The next push, put in force.
    pub async fn next(&mut self) -> pb::ToProxy {
        let push = self.push().await;
        self.ack(&push).await;
        push
    }

    /// Takes pushes until `done` says that what it has is as it should be.
    pub async fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            self.next().await;
        }
    }

    pub fn addresses(&self, service: &str) -> Vec<String> {
        let endpoints = self
            .endpoints
            .get(service)
            .into_iter()
            .flat_map(HashMap::keys);
        let mut addresses: Vec<String> = endpoints.cloned().collect();
        addresses.sort();
        addresses
    }

    fn apply(&mut self, push: &pb::ToProxy) {
        if !push.trust_bundle.is_empty() {
            self.trust_bundle = push.trust_bundle.len();
        }
        if !push.workload_json.is_empty() {
            let workload = serde_json::from_slice(&push.workload_json);
            self.workload = Some(workload.expect("a workload"));
        }
        for service in push
            .services
            .iter()
            .filter(|service| service.policy_json.is_empty())
        {
            self.endpoints.remove(&service.service);
        }
        for delta in &push.endpoints {
            let known = self.endpoints.entry(delta.service.clone()).or_default();
            if delta.reset {
                known.clear();
            }
            for address in &delta.removed {
                known
                    .remove(address)
                    .expect("only what is known is removed");
            }
            for endpoint in &delta.changed {
                known.insert(endpoint.address.clone(), endpoint.clone());
            }
        }
    }
}
