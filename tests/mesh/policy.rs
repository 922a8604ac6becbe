//! A policy file that changes while load runs.

use std::time::{Duration, Instant};

use crate::load::{self, assert_all_served};
use crate::world::{World, within};

/// Every request to `/delay/150` is slower than this deadline: with it, callers get the fallback, and that is a 200.
const IMPATIENT: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  routes:
  - match: {http: {pathPrefix: /delay}}
    outbound:
      deadline: 50ms
      fallback: {httpStatus: 200, message: from the policy}
";

const PATIENT: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound: {deadline: 5s}
";

/// A deadline that is no time, and a field that nobody knows.
const BROKEN: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server}]
  outbound:
    deadline: 5 parsecs
    retrys: {attempts: 2}
";

/// Of each caller: more than its requests take.
const EVERY: Duration = Duration::from_millis(200);
const CHANGED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_policy_holds_within_a_second_and_costs_no_request() {
    let world = World::with(1, PATIENT, "");
    let load = load::start(&world, "/delay/150", EVERY).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let edited = Instant::now();
    world.write_policy(IMPATIENT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let edited_back = Instant::now();
    world.write_policy(PATIENT);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let samples = load.end().await;
    assert_all_served(&samples, "two edits under load");

    let degraded =
        |sample: &&load::Sample| matches!(sample.came, Ok(load::Answer { degraded: true, .. }));
    let first = samples
        .iter()
        .find(degraded)
        .expect("the policy was in force");
    let took = (first.at + first.took).saturating_duration_since(edited);
    println!("in force {took:?} after the edit");
    assert!(first.at + first.took > edited, "not before it was said");
    assert!(took < CHANGED_WITHIN, "{took:?}");
    let last = samples.iter().rfind(degraded).expect("seen above");
    let took = last.at.saturating_duration_since(edited_back);
    println!("out of force {took:?} after the next");
    assert!(took < CHANGED_WITHIN, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_file_is_refused_with_a_caret_and_nothing_changes() {
    let world = World::with(1, IMPATIENT, "");
    let is_degraded = async || {
        let response = world.get("server:80", "/delay/150").await;
        response.headers().contains_key("x-weir-degraded")
    };
    let begun = Instant::now();
    while !is_degraded().await {
        assert!(
            begun.elapsed() < CHANGED_WITHIN,
            "the policy is not in force"
        );
    }
    let load = load::start(&world, "/delay/150", EVERY).await;
    world.write_policy(BROKEN);
    let mut refusal = String::new();
    within(CHANGED_WITHIN, "it is refused", || {
        refusal = tokio::task::block_in_place(|| world.events("PolicyRejected"));
        !refusal.is_empty()
    })
    .await;
    let event: serde_json::Value = serde_json::from_str(refusal.lines().next().unwrap()).unwrap();
    let diagnostics = event["details"]["diagnostics"]
        .as_array()
        .expect("what is wrong");
    let all: Vec<&str> = diagnostics
        .iter()
        .filter_map(serde_json::Value::as_str)
        .collect();
    println!("{}", all.join("\n"));
    for (line, mistake, carets) in [("8:", "5 parsecs", "^^^^^^^^^"), ("9:", "retrys", "^^^^^^")] {
        let told = all
            .iter()
            .find(|one| one.contains(mistake))
            .expect("each mistake is told");
        assert!(
            told.contains("policy.yaml") && told.contains(line),
            "{told}"
        );
        // The carets are under the mistake.
        let mut lines = told
            .lines()
            .skip_while(|line| !line.contains(mistake) || !line.contains(':'));
        let shown: Vec<&str> = lines.by_ref().collect();
        let under = shown
            .iter()
            .position(|line| line.contains(carets))
            .expect("carets");
        let column = |text: &str, part: &str| text.find(part).map(|at| text[..at].chars().count());
        assert_eq!(
            column(shown[under], carets),
            column(shown[under - 1], mistake),
            "{told}"
        );
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let samples = load.end().await;
    assert_all_served(&samples, "a refused policy");
    assert!(is_degraded().await, "the last good policy stays in force");
}
