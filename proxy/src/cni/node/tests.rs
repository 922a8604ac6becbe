use serde_json::Value;

use super::*;

const CHAIN: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"}]}"#;
const SINGLE: &str = r#"{"cniVersion":"0.3.1","name":"net","type":"bridge"}"#;

struct Folder {
    folder: tempfile::TempDir,
    node: Node,
}

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let node = Node {
            programs: folder.path().join("bin"),
            networks: folder.path().join("net.d"),
        };
        for path in [&node.programs, &node.networks] {
            fs::create_dir(path).expect("a folder");
        }
        for (name, text) in files {
            fs::write(node.networks.join(name), text).expect("a file");
        }
        Self { folder, node }
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.node.names().expect("a folder");
        names.sort();
        names
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.node.networks.join(name)).expect("a file")
    }

    fn types(&self, name: &str) -> Vec<String> {
        let network: Value = serde_json::from_str(&self.text(name)).expect("JSON");
        let plugins = network["plugins"].as_array().cloned().unwrap_or_default();
        plugins
            .iter()
            .map(|plugin| plugin["type"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

fn entry() -> Entry {
    Entry {
        kubeconfig: "/etc/cni/net.d/weir-cni.kubeconfig".into(),
        excluded_namespaces: vec!["kube-system".into()],
    }
}

#[test]
fn it_joins_the_first_network_only_and_leaves_it_as_it_was() {
    let folder = Folder::with(&[
        ("20-later.conflist", CHAIN),
        ("10-net.conflist", CHAIN),
        ("README", "no"),
    ]);
    let path = folder.node.networks.join("10-net.conflist");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
    let written = folder
        .node
        .join_chain(&entry())
        .expect("it joins")
        .expect("it was not in there");
    assert!(written.ends_with("10-net.conflist"), "{written}");
    assert_eq!(folder.types("10-net.conflist"), ["bridge", "weir-cni"]);
    assert_eq!(mode(&path).expect("there"), 0o640);
    assert_eq!(folder.text("20-later.conflist"), CHAIN);
    assert_eq!(
        folder.node.join_chain(&entry()).expect("it is in there"),
        None
    );

    // Another network comes to stand before it.
    fs::write(folder.node.networks.join("05-new.conflist"), CHAIN).expect("a file");
    folder
        .node
        .join_chain(&entry())
        .expect("it joins")
        .expect("it was not in there");
    assert_eq!(folder.types("05-new.conflist"), ["bridge", "weir-cni"]);
    assert_eq!(folder.types("10-net.conflist"), ["bridge"]);

    folder.node.leave().expect("it leaves");
    assert_eq!(folder.types("05-new.conflist"), ["bridge"]);
    assert_eq!(
        folder.names(),
        [
            "05-new.conflist",
            "10-net.conflist",
            "20-later.conflist",
            "README"
        ]
    );
}

#[test]
fn a_single_plugin_is_put_back_as_it_was_to_the_byte() {
    let folder = Folder::with(&[("10-net.conf", SINGLE)]);
    folder
        .node
        .join_chain(&entry())
        .expect("it joins")
        .expect("it was not in there");
    assert_eq!(folder.names(), ["10-net.conf.weir-cni", "10-net.conflist"]);
    assert_eq!(folder.types("10-net.conflist"), ["bridge", "weir-cni"]);
    assert_eq!(
        folder.node.join_chain(&entry()).expect("it is in there"),
        None
    );

    // Whoever wrote it writes it again.
    fs::write(
        folder.node.networks.join("10-net.conf"),
        SINGLE.replace("bridge", "ptp"),
    )
    .expect("a file");
    folder
        .node
        .join_chain(&entry())
        .expect("it joins")
        .expect("it was not in there");
    assert_eq!(folder.types("10-net.conflist"), ["ptp", "weir-cni"]);

    folder.node.leave().expect("it leaves");
    assert_eq!(folder.names(), ["10-net.conf"]);
    assert_eq!(folder.text("10-net.conf"), SINGLE.replace("bridge", "ptp"));
}

#[test]
fn it_is_joined_only_with_program_and_credentials_and_says_what_is_missing() {
    let folder = Folder::with(&[]);
    let missing = |what: &str| {
        let error = folder.node.joined(&entry()).expect_err(what).to_string();
        assert!(error.contains(what), "{error}");
    };
    missing("the cluster's network comes first");
    assert!(matches!(
        folder.node.join_chain(&entry()),
        Err(NodeError::NoNetwork(_))
    ));
    fs::write(folder.node.networks.join("10-net.conflist"), "{").expect("a file");
    missing("no JSON");
    fs::write(folder.node.networks.join("10-net.conflist"), CHAIN).expect("a file");
    missing("not in it as it should be");
    folder.node.join_chain(&entry()).expect("it joins");
    missing("bin/weir-cni");
    let program = folder.folder.path().join("program");
    fs::write(&program, "ELF").expect("a file");
    assert!(folder.node.place_program(&program).expect("it is copied"));
    assert!(!folder.node.place_program(&program).expect("it is there"));
    assert_eq!(mode(&folder.node.program()).expect("there"), 0o755);
    missing("weir-cni.kubeconfig");
    let mut credentials = Credentials {
        server: "https://10.96.0.1".into(),
        authority: "PEM".into(),
        token: "one".into(),
    };
    assert!(
        folder
            .node
            .place_credentials(&credentials)
            .expect("written")
    );
    assert!(!folder.node.place_credentials(&credentials).expect("there"));
    assert_eq!(mode(&folder.node.kubeconfig()).expect("there"), 0o600);
    credentials.token = "two".into();
    assert!(
        folder
            .node
            .place_credentials(&credentials)
            .expect("renewed")
    );
    assert!(folder.text("weir-cni.kubeconfig").contains("two"));
    assert!(folder.node.joined(&entry()).is_ok());
}

#[test]
fn the_last_installer_owns_the_place() {
    let folder = Folder::with(&[]);
    assert!(!folder.node.is_owned_by("old"));
    folder.node.own("old").expect("written");
    assert!(folder.node.is_owned_by("old"));
    folder.node.own("new").expect("written");
    assert!(!folder.node.is_owned_by("old") && folder.node.is_owned_by("new"));
    folder.node.leave().expect("it leaves");
    assert_eq!(folder.names(), Vec::<String>::new());
}
