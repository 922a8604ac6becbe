use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use weir_config::parse;
use weir_config::resource::ObjectName;

use super::*;
use crate::mesh::{Change, Membership};
use crate::version::Versions;

type Answer = Result<(Vec<IpAddr>, Duration), String>;

/// Answers in the order in which they were written, the last one for ever; keeps the time of each question.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic under it").len()
    }
}

impl Lookup for Script {
    async fn lookup(&self, name: String) -> Answer {
        assert_eq!(name, "db.example");
        self.asked
            .lock()
            .expect("no panic under it")
            .push(Instant::now());
        let mut answers = self.answers.lock().expect("no panic under it");
        let answer = answers.pop_front().expect("an answer is left");
        if answers.is_empty() {
            answers.push_back(answer.clone());
        }
        answer
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// A mesh in which somebody wants a service behind a name.
fn mesh() -> (Mesh, Membership) {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {clusterIP: 10.96.0.1, ports: [{port: 80}]}\n---\n\
                apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db, namespace: shop}\n\
                addressType: FQDN\nports: [{port: 8080}]\nendpoints: [{addresses: [db.example]}]\n";
    let mesh = Mesh::new("weir.local", Versions::in_memory());
    let resources = parse("test", text).expect("in order").into_iter();
    mesh.change(resources.map(|located| Change::Apply(Box::new(located.value))));
    let member = mesh.join(&ObjectName::new("shop", "p"));
    member.subscribe(SocketAddr::new(ip("10.96.0.1"), 80));
    member.mailbox().take();
    (mesh, member)
}

fn endpoints(member: &Membership) -> Option<Vec<String>> {
    let news = member.collect(&member.mailbox().take());
    let service = news.services.first()?;
    Some(
        service
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.clone())
            .collect(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_again_when_its_answer_ends_and_not_before() {
    let minute = Duration::from_secs(60);
    let script = Script::new([
        Ok((vec![ip("192.0.2.1")], minute)),
        Ok((vec![ip("192.0.2.2")], minute)),
    ]);
    let (mesh, member) = mesh();
    tokio::spawn(keep_resolved(mesh, script.clone()));
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(
        (script.asked(), endpoints(&member)),
        (1, Some(vec!["192.0.2.1:8080".into()]))
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        (script.asked(), endpoints(&member)),
        (2, Some(vec!["192.0.2.2:8080".into()]))
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_stops_answering_keeps_its_last_good_addresses() {
    let second = Duration::from_secs(1);
    let script = Script::new([
        Ok((vec![ip("192.0.2.1")], second)),
        Err("SERVFAIL".to_owned()),
        Ok((Vec::new(), second)),
        Err("NXDOMAIN".to_owned()),
    ]);
    let (mesh, member) = mesh();
    tokio::spawn(keep_resolved(mesh, script.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(endpoints(&member), Some(vec!["192.0.2.1:8080".into()]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(member.mailbox().take().is_empty(), "nothing changed");
    assert!(
        (8..16).contains(&script.asked()),
        "{} questions in a minute",
        script.asked()
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_good_for_no_time_makes_no_storm() {
    let script = Script::new([Ok((vec![ip("192.0.2.1")], Duration::ZERO))]);
    let (mesh, _member) = mesh();
    tokio::spawn(keep_resolved(mesh, script.clone()));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(
        script.asked() <= 11,
        "{} questions in ten seconds",
        script.asked()
    );
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_wants_any_more_is_not_asked_for() {
    let script = Script::new([Ok((vec![ip("192.0.2.1")], Duration::from_secs(1)))]);
    let (mesh, member) = mesh();
    tokio::spawn(keep_resolved(mesh.clone(), script.clone()));
    tokio::time::sleep(Duration::from_secs(3)).await;
    drop(member);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = script.asked();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(script.asked(), before);
}
