use weir_config::Kind;
use weir_config::resource::ObjectName;

use super::*;
use crate::version::Versions;

const PATIENCE: Duration = Duration::from_secs(15);

fn peers(pod: &str) -> Peers {
    let mesh = Mesh::new("weir.local", Versions::in_memory());
    Peers::new(pod, mesh, Register::default())
}

fn resource(name: &str) -> ResourceRef {
    ResourceRef {
        kind: Kind::ResiliencePolicy,
        name: ObjectName::new("boutique", name),
    }
}

fn said(pod: &str, beat: u64, generation: i64, counts: [usize; 2]) -> (String, String) {
    let behind = (counts[1] < counts[0]).then(|| "boutique/late-0".to_owned());
    let counted = Counted(Some(generation), vec![Count(counts[0], counts[1], behind)]);
    let said = Said {
        pod: pod.to_owned(),
        beat,
        cut: false,
        policies: BTreeMap::from([(resource("cart").to_string(), counted)]),
    };
    (key(pod), fitted(said, BYTES_MAX).expect("there is room"))
}

/// Of generation 3 of a policy that 7 of 7 have in force here.
fn sum(others: &Others) -> (usize, usize, Option<String>) {
    let mut all = [Enforcement {
        target: None,
        attachment: Attachment::Accepted,
        proxies: 7,
        acknowledged: 7,
        behind: None,
        untold: None,
        until_ms: None,
        outages: Vec::new(),
        no_address: None,
        exceptions: Vec::new(),
        unmeshed: None,
    }];
    others.add(&resource("cart"), Some(3), &mut all);
    let [found] = all;
    (found.acknowledged, found.proxies, found.behind)
}

#[tokio::test(start_paused = true)]
async fn whoever_writes_status_adds_what_the_others_count_for_as_long_as_they_say_it() {
    let mut holder = peers("weir-0");
    let others = holder.others();
    let mut annotations = Annotations::from([("theirs".to_owned(), "stays".to_owned())]);
    annotations.extend([said("weir-1", 1, 3, [7, 7]), said("weir-2", 1, 3, [2, 1])]);
    holder.learn(&mut annotations, PATIENCE);
    assert_eq!(sum(&others), (15, 16, Some("boutique/late-0".to_owned())));

    // An acknowledgement of what the policy said before is none of what it says now.
    annotations.extend([said("weir-1", 2, 2, [7, 7]), said("weir-2", 2, 3, [2, 2])]);
    holder.learn(&mut annotations, PATIENCE);
    assert_eq!(sum(&others), (9, 16, Some("those of weir-1".to_owned())));

    // One of them says nothing any more.
    tokio::time::advance(PATIENCE).await;
    annotations.extend([said("weir-2", 3, 3, [2, 2])]);
    holder.learn(&mut annotations, PATIENCE);
    assert_eq!(sum(&others), (9, 9, None));
    assert_eq!(
        annotations.len(),
        2,
        "what nobody renews goes: {annotations:?}"
    );
    assert_eq!(annotations["theirs"], "stays");
}

#[tokio::test(start_paused = true)]
async fn whoever_says_the_same_again_is_there_and_whoever_holds_the_lease_is_no_other() {
    let mut holder = peers("weir-0");
    let others = holder.others();
    for beat in 0..5 {
        let mut annotations = Annotations::from([
            said("weir-0", beat, 3, [7, 7]),
            said("weir-1", beat, 3, [7, 7]),
        ]);
        holder.learn(&mut annotations, PATIENCE);
        assert_eq!(sum(&others), (14, 14, None));
        assert_eq!(others.revision(), 1, "a beat is no news");
        tokio::time::advance(PATIENCE / 2).await;
    }
    let mut annotations = Annotations::new();
    holder.tell(&mut annotations);
    assert_eq!(sum(&others), (7, 7, None), "it writes no status any more");
    assert!(annotations[&key("weir-0")].contains("weir-0"));
}

#[test]
fn more_than_there_is_room_for_is_left_out_and_said_to_be() {
    let policies = (0..5000).map(|n| {
        let counted = Counted(Some(1), vec![Count(7, 7, None)]);
        (resource(&format!("policy-{n}")).to_string(), counted)
    });
    let said = Said {
        pod: "weir-1".to_owned(),
        beat: 1,
        cut: false,
        policies: policies.collect(),
    };
    let text = fitted(said.clone(), BYTES_MAX).expect("there is room for some");
    assert!(text.len() <= BYTES_MAX && text.len() > BYTES_MAX / 4);
    let back: Said = serde_json::from_str(&text).expect("it is JSON");
    assert!(back.cut && !back.policies.is_empty());
    let holder = peers("weir-0");
    holder.others.replace(vec![back]);
    let mut all = [Enforcement {
        target: None,
        attachment: Attachment::Accepted,
        proxies: 1,
        acknowledged: 1,
        behind: None,
        untold: None,
        until_ms: None,
        outages: Vec::new(),
        no_address: None,
        exceptions: Vec::new(),
        unmeshed: None,
    }];
    holder
        .others
        .add(&resource("policy-999"), Some(1), &mut all);
    assert_eq!(all[0].untold.as_deref(), Some("weir-1"));
    assert_eq!(fitted(said, 10), None);
}

/// Texts that are no counts, too long, or of another pod than their name says, are not kept.
#[test]
fn what_is_no_count_is_dropped() {
    let mut holder = peers("weir-0");
    let (own, text) = said("weir-1", 1, 3, [7, 7]);
    let long = text.replace("weir-1", &"x".repeat(BYTES_MAX));
    let mut annotations = Annotations::from([
        (key("weir-2"), "counts".to_owned()),
        (key("weir-3"), text.clone()),
        (key(&"x".repeat(BYTES_MAX)), long),
        (own, text),
    ]);
    holder.learn(&mut annotations, PATIENCE);
    assert_eq!(sum(&holder.others()), (14, 14, None));
    assert_eq!(annotations.len(), 1);
}
