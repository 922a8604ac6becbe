use proptest::prelude::*;

use super::*;

fn entry() -> Entry {
    Entry {
        kubeconfig: "/etc/cni/net.d/weir-cni.kubeconfig".into(),
        excluded_namespaces: vec!["kube-system".into()],
    }
}

#[test]
fn a_chain_gets_our_entry_as_its_last() {
    let flannel = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel","delegate":{"hairpinMode":true}},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;
    let expected = r#"{
  "name": "cbr0",
  "cniVersion": "1.0.0",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    },
    {
      "type": "weir-cni",
      "kubeconfig": "/etc/cni/net.d/weir-cni.kubeconfig",
      "excludeNamespaces": [
        "kube-system"
      ],
      "capabilities": {
        "io.kubernetes.cri.pod-annotations": true
      }
    }
  ]
}
"#;
    assert_eq!(chain(flannel, &entry()).as_deref(), Ok(expected));
}

#[test]
fn a_single_plugin_becomes_a_chain_of_two_with_all_that_it_said() {
    let single =
        r#"{"cniVersion":"0.3.1","name":"net","type":"bridge","ipam":{"type":"host-local"}}"#;
    assert!(is_single(single));
    let chained: Value =
        serde_json::from_str(&chain(single, &entry()).expect("a chain")).expect("JSON");
    assert_eq!(chained["cniVersion"], "0.3.1");
    assert_eq!(chained["name"], "net");
    assert_eq!(
        chained["plugins"][0],
        serde_json::from_str::<Value>(single).expect("JSON")
    );
    assert_eq!(chained["plugins"][1]["type"], "weir-cni");
}

#[test]
fn an_older_entry_of_ours_is_replaced_and_moved_to_the_end() {
    let text = r#"{"cniVersion":"1.0.0","plugins":[{"type":"weir-cni","kubeconfig":"/old"},{"type":"bridge"}]}"#;
    let chained: Value =
        serde_json::from_str(&chain(text, &entry()).expect("a chain")).expect("JSON");
    assert_eq!(chained["plugins"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        chained["plugins"][1]["kubeconfig"],
        "/etc/cni/net.d/weir-cni.kubeconfig"
    );
}

#[test]
fn what_is_no_network_is_refused_with_the_reason() {
    for (text, why) in [
        ("", "no JSON"),
        ("[]", "no object"),
        ("{}", "neither plugins nor a type"),
        (r#"{"cniVersion":"1.0.0","plugins":{}}"#, "no list"),
        (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "no plugin"),
        (
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"weir-cni"}]}"#,
            "no plugin",
        ),
        (r#"{"cniVersion":"0.2.0","type":"bridge"}"#, "0.2.0"),
        (r#"{"type":"bridge"}"#, "0.1.0"),
    ] {
        let error = chain(text, &entry()).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn the_first_name_that_a_runtime_reads_is_the_networks() {
    let names = [
        "weir-cni.kubeconfig",
        "20-b.conf",
        "10-a.conflist",
        "05-x.conf.weir-cni",
        "99-z.json",
    ];
    assert_eq!(primary(names), Some("10-a.conflist"));
    assert_eq!(primary(["README", "a.conf~"]), None);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec(("[a-z]{1,6}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is in it: a second time changes no byte, and taken out again it is what it was.
    #[test]
    fn adding_twice_is_adding_once_and_removing_gives_back_what_was_there(
        more in proptest::collection::vec(("[A-Z]{1,8}", json_value()), 0..4),
        plugins in proptest::collection::vec(json_value(), 1..4),
    ) {
        let mut network: Map<String, Value> = more.into_iter().collect();
        network.insert("cniVersion".into(), "1.0.0".into());
        network.insert("plugins".into(), plugins.into());
        let text = Value::Object(network.clone()).to_string();
        let once = chain(&text, &entry()).expect("a network");
        prop_assert_ne!(&once, &text);
        prop_assert_eq!(&chain(&once, &entry()).expect("a network"), &once);
        let back = unchain(&once).expect("a network").expect("it was in there");
        prop_assert_eq!(object(&back).expect("an object"), network);
        prop_assert_eq!(unchain(&back), Ok(None));
    }

    #[test]
    fn nonsense_is_refused_and_never_a_panic(text in "\\PC{0,40}") {
        let _ = (chain(&text, &entry()), unchain(&text), is_single(&text));
    }
}
