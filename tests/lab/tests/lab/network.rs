//! Faults of the network, and frozen processes.

use std::io::ErrorKind;
use std::time::Duration;

use weir_lab::Lab;

use crate::echo::{deployment, eventually, get, get_over, up};

fn two() -> Lab {
    up(&(deployment("left", 1, "", "") + "---" + &deployment("right", 1, "", "")))
}

/// Whether a small question is answered soon; a lost packet is not waited for.
fn answers(lab: &Lab, from: &str, to: &str) -> bool {
    let script = format!(
        "timeout 2 getent hosts {to} >/dev/null; timeout 2 curl -s -m 1 http://{to}/ >/dev/null"
    );
    lab.exec(Some(from), &["sh", "-c", &script]).unwrap().code == 0
}

#[test]
fn a_partition_cuts_both_directions_and_nobody_else_and_heals() {
    let lab = up(&["left", "right", "other"]
        .map(|name| deployment(name, 1, "", ""))
        .join("---"));
    assert!(answers(&lab, "left", "right"));
    lab.net_drop("left", "right").unwrap();
    assert!(!answers(&lab, "left", "right"));
    assert!(!answers(&lab, "right", "left"));
    assert!(answers(&lab, "other", "right"));
    // A pod that takes the place of another is behind the same partition.
    lab.restart("right/0").unwrap();
    assert!(!answers(&lab, "left", "right"));
    lab.net_heal().unwrap();
    assert!(answers(&lab, "left", "right"));
}

#[test]
fn all_packets_of_a_pod_can_be_lost() {
    let lab = two();
    lab.net_loss(100, "right/0").unwrap();
    assert!(!answers(&lab, "left", "right"));
    lab.net_heal().unwrap();
    assert!(answers(&lab, "left", "right"));
    assert!(lab.net_loss(101, "right/0").is_err());
}

#[test]
fn a_frozen_pod_accepts_and_does_not_answer_until_it_goes_on() {
    let lab = two();
    lab.stop("right/0").unwrap();
    let stream = lab.dial(Some("left"), "right-0:8080").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let waiting = stream.try_clone().unwrap();
    let asked = std::thread::spawn(move || get_over(stream, "/"));
    let mut byte = [0];
    waiting
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let silence = waiting.peek(&mut byte).unwrap_err();
    assert_eq!(silence.kind(), ErrorKind::WouldBlock);
    eventually("its probes notice", || !lab.pod("right/0").unwrap().ready);
    lab.cont("right/0").unwrap();
    eventually("it is ready again", || lab.pod("right/0").unwrap().ready);
    assert_eq!(
        get(&lab, Some("left"), "right-0:8080", "/").unwrap(),
        "right-0"
    );
    drop(asked);
}

#[test]
fn a_pod_reaches_nothing_outside_the_lab() {
    let lab = two();
    // An address of documentation: it is nowhere, in here and out there.
    let refusal = lab
        .dial(Some("left"), "192.0.2.1:80")
        .unwrap_err()
        .to_string();
    assert!(refusal.contains("unreachable"), "{refusal}");
}
