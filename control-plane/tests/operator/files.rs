//! `weir` on files, without a control plane.

use tokio::process::Command;

use super::world::{self, folder, policy};
use super::{stderr, stdout, weir};

#[tokio::test]
async fn without_a_control_plane_the_command_line_says_so_and_still_validates() {
    let folder = folder();
    let output = weir(folder.path(), &["events"]).await;
    assert_eq!(output.status.code(), Some(3));
    assert!(
        stderr(&output).contains("operator.sock") && stdout(&output).is_empty(),
        "{}",
        stderr(&output)
    );

    let pod = "kubectl -n weir-system exec";
    assert!(!stderr(&output).contains(pod), "{}", stderr(&output));
    // Nobody said where, and on Kubernetes that is where nobody looks.
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .env_remove("WEIR_CONTROL_PLANE")
        .args(["breakers", "--service", "boutique/cart it"])
        .output()
        .await
        .expect("it runs");
    assert_eq!(output.status.code(), Some(3));
    let asked =
        format!("{pod} deploy/weir-control-plane -- weir breakers --service 'boutique/cart it'");
    assert!(stderr(&output).contains(&asked), "{}", stderr(&output));

    let source = folder.path().join("source");
    let source = source.to_str().expect("text");
    let fine = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(fine.status.code(), Some(0), "{}", stderr(&fine));
    assert_eq!(stdout(&fine), "7 files, 1 policy: fine\n");
    world::write(
        folder.path(),
        "bad.yaml",
        &(policy("currency", "soon") + &policy("cart", "later")),
    );
    let bad = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        stderr(&bad).contains("soon") && stderr(&bad).contains("later"),
        "all mistakes at once: {}",
        stderr(&bad)
    );
    world::write(folder.path(), "bad.yaml", &policy("no-such-service", "1s"));
    let warned = weir(folder.path(), &["validate", "-f", source]).await;
    assert_eq!(warned.status.code(), Some(0));
    assert!(
        stderr(&warned).contains("none of these files has"),
        "{}",
        stderr(&warned)
    );
}

#[tokio::test]
async fn inject_writes_the_same_pods_as_the_webhook_would_and_nothing_when_one_is_refused() {
    let folder = folder();
    let file = folder.path().join("deployment.yaml");
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: cart}\nspec:\n  template:\n    metadata: {labels: {app: cart}}\n    spec: {containers: [{name: cart, image: cart}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: cart}\n";
    std::fs::write(&file, deployment).expect("written");
    let path = file.to_str().expect("text");
    let output = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(&stdout(&output)).expect("YAML");
    assert_eq!(documents.len(), 2);
    assert_eq!(
        documents[0]["spec"]["template"]["spec"]["initContainers"][1]["name"],
        "weir-proxy"
    );
    assert!(
        stderr(&output).contains("deployment default/cart: injected"),
        "{}",
        stderr(&output)
    );
    // Its own output comes out as it went in.
    std::fs::write(&file, &output.stdout).expect("written");
    let again = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(stdout(&again), stdout(&output));
    let refused = deployment.replace(
        "image: cart",
        "image: cart, securityContext: {runAsUser: 14102}",
    );
    std::fs::write(&file, refused).expect("written");
    let output = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(
        (output.status.code(), stdout(&output).as_str()),
        (Some(1), "")
    );
    assert!(stderr(&output).contains("14102"), "{}", stderr(&output));
}

/// kubectl reads YAML 1.1: what `weir inject` hands on must be what kubectl would have made of the file itself.
#[tokio::test]
async fn inject_reads_numbers_as_kubectl_does_and_quotes_what_it_would_take_for_others() {
    let folder = folder();
    let file = folder.path().join("deployment.yaml");
    let deployment = "# A comment.\r\napiVersion: apps/v1\r\nkind: Deployment\r\nmetadata: {name: cart, annotations: {answer: \"yes\", version: \"1.10\"}}\r\n\
        spec:\r\n  template:\r\n    spec:\r\n      containers: [{name: cart, image: cart, env: [{name: PIN, value: \"0123\"}]}]\r\n\
        \u{20}     volumes: [{name: key, secret: {secretName: key, defaultMode: 0400}}]\r\n";
    std::fs::write(&file, deployment).expect("written");
    let output = weir(
        folder.path(),
        &["inject", "-f", file.to_str().expect("text")],
    )
    .await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for line in [
        "defaultMode: 256",
        "answer: \"yes\"",
        "version: \"1.10\"",
        "value: \"0123\"",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn inject_says_of_what_kind_it_does_not_know_that_it_left_it_alone() {
    let folder = folder();
    let file = folder.path().join("rollout.yaml");
    let rollout = "apiVersion: argoproj.io/v1alpha1\nkind: Rollout\nmetadata: {name: cart}\nspec:\n  template:\n    spec: {containers: [{name: cart}]}\n";
    std::fs::write(&file, rollout).expect("written");
    let output = weir(
        folder.path(),
        &["inject", "-f", file.to_str().expect("text")],
    )
    .await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(
        stderr(&output)
            .contains("rollout default/cart: left as it is: weir does not know this kind"),
        "{}",
        stderr(&output)
    );
    assert!(!stdout(&output).contains("weir-proxy"));
}

/// What a Namespace said was not heard in a List, which is how kubectl prints several objects.
#[tokio::test]
async fn inject_hears_a_namespace_in_a_list_and_names_what_it_does_not_know() {
    let folder = folder();
    let file = folder.path().join("list.yaml");
    let story = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/injection/namespace-annotations.yaml"
    );
    let story = std::fs::read_to_string(story).expect("a fixture");
    let mut objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&story).expect("YAML");
    objects[1]["metadata"]["namespace"] = objects[0]["metadata"]["name"].clone();
    objects[0]["metadata"]["annotations"]["config.weir.dev/drain-secs"] = "9".into();
    objects[1]["metadata"]["annotations"]["config.weir.dev/log-lvl"] = "debug".into();
    let list = |items| serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let path = file.to_str().expect("text");
    let mut found = Vec::new();
    for nested in [
        objects.clone(),
        vec![list(objects.clone())],
        vec![list(vec![list(objects)])],
    ] {
        let text = serde_saphyr::to_string_multiple(&nested).expect("YAML");
        std::fs::write(&file, text).expect("written");
        let output = weir(folder.path(), &["inject", "-f", path]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for told in [
            "warning: pod boutique/checkout-0: annotation config.weir.dev/log-lvl of the pod is unknown",
            "warning: pod boutique/checkout-0: annotation config.weir.dev/drain-secs of namespace boutique is unknown",
        ] {
            assert!(stderr(&output).contains(told), "{}", stderr(&output));
        }
        let mut documents: Vec<serde_json::Value> =
            serde_saphyr::from_multiple(&stdout(&output)).expect("YAML");
        let mut last = documents.pop().expect("something");
        while last["kind"] == "List" {
            let items = last["items"].as_array_mut().expect("items");
            last = items.pop().expect("something");
        }
        let annotations = &last["metadata"]["annotations"];
        assert_eq!(annotations["config.weir.dev/drain-seconds"], "12");
        assert_eq!(
            annotations["config.weir.dev/drain-secs"],
            serde_json::Value::Null,
            "it says nothing"
        );
        found.push(last);
    }
    assert!(found.iter().all(|pod| *pod == found[0]), "{found:#?}");
}

/// Nobody calls it by an address of its own: its callers dial its pods.
#[tokio::test]
async fn validate_warns_of_what_is_said_for_callers_of_a_headless_service() {
    let folder = folder();
    let file = folder.path().join("headless.yaml");
    let told = async |spec: &str, says: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{{spec}, ports: [{{name: http, port: 80}}]}}\n---\n\
             apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: Service, name: db}}], {says}}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: db}}], rules: [{{backendRefs: [{{name: db, port: 80}}]}}]}}\n"
        );
        std::fs::write(&file, text).expect("written");
        let path = file.to_str().expect("text");
        let output = weir(folder.path(), &["validate", "-f", path]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let lines: Vec<String> = stderr(&output).lines().map(str::to_owned).collect();
        lines
    };
    let (outbound, inbound) = (
        "outbound: {deadline: 1s}",
        "inbound: {limits: {inFlight: 9}}",
    );
    assert_eq!(told("clusterIP: 10.0.0.1", outbound).await, [""; 0]);
    let headless = told("clusterIP: None", outbound).await;
    assert_eq!(headless.len(), 2, "{headless:?}");
    assert!(headless[0].contains("ResiliencePolicy shop/db says something for callers of db"));
    assert!(headless[1].contains("HTTPRoute shop/db is attached to shop/db"));
    for line in &headless {
        assert!(
            line.contains("has no ClusterIP: its callers call its pods"),
            "{line}"
        );
    }
    assert_eq!(told("clusterIP: None", inbound).await.len(), 1, "the route");
    let external = told("type: ExternalName, externalName: x.example", inbound).await;
    assert!(
        external[1].contains("ExternalName: no call is sent there"),
        "{external:?}"
    );
}

/// It was in order, and no call ever met it.
#[tokio::test]
async fn validate_warns_of_a_route_of_an_opaque_port_and_says_what_to_change() {
    let folder = folder();
    let file = folder.path().join("opaque.yaml");
    let told = async |kind: &str, port: &str| {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{clusterIP: 10.0.0.1, ports: [{port}]}}\n---\n\
             apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: db}}], rules: [{{backendRefs: [{{name: db, port: 80}}]}}]}}\n"
        );
        std::fs::write(&file, text).expect("written");
        let path = file.to_str().expect("text");
        let output = weir(folder.path(), &["validate", "-f", path]).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stderr(&output)
    };
    for kind in ["HTTPRoute", "GRPCRoute"] {
        assert_eq!(told(kind, "{name: http, port: 80}").await, "");
        for port in [
            "{name: tcp-db, port: 80}",
            "{name: db, port: 80, appProtocol: tcp}",
        ] {
            let warning = told(kind, port).await;
            for words in [
                "db is attached to shop/db",
                "is opaque",
                "set appProtocol to",
            ] {
                assert!(warning.contains(words), "{kind} {port}: {warning}");
            }
        }
    }
}

/// Of the two kinds of routes on a port one is obeyed.
#[tokio::test]
async fn validate_warns_of_an_http_route_beside_a_grpc_route() {
    let folder = folder();
    let route = |kind: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: it, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: \"\", kind: Service, name: it}}], rules: [{{backendRefs: [{{name: it, port: 80}}]}}]}}\n"
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: it, namespace: shop}\n\
                   spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";
    let file = folder.path().join("both.yaml");
    let both = [service, &route("HTTPRoute"), &route("GRPCRoute")].concat();
    std::fs::write(&file, both).expect("written");
    let path = file.to_str().expect("text");
    let told = stderr(&weir(folder.path(), &["validate", "-f", path]).await);
    let words = "HTTPRoute shop/it is attached to shop/it: a GRPCRoute of its namespace is, too, and comes first";
    assert!(told.contains(words), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// Each has its target, and holds where nobody would look for that.
#[tokio::test]
async fn validate_warns_where_a_policy_does_not_hold_though_it_has_its_target() {
    let folder = folder();
    let file = folder.path().join("two.yaml");
    let service = |name: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{clusterIP: 10.0.0.1, selector: {{app: it}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n"
        )
    };
    let policy = |name: &str, target: &str, says: &str| {
        format!(
            "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{targetRefs: [{{kind: {target}}}], {says}}}\n---\n"
        )
    };
    let inbound = "inbound: {limits: {inFlight: 9}}";
    let texts = [
        service("first"),
        service("second"),
        policy("one", "Service, name: first", &format!("mode: Observe, {inbound}")),
        policy("two", "Service, name: second", inbound),
        policy("all", "Namespace, name: shop", "outbound: {deadline: 1s}"),
        "apiVersion: v1\nkind: Pod\nmetadata: {name: it-0, namespace: shop, labels: {app: it}}\n\
         spec: {initContainers: [{name: weir-proxy, env: [{name: WEIR_POD_NAME}]}], containers: [{name: it}]}\nstatus: {podIP: 10.0.0.9}\n"
            .to_owned(),
    ];
    std::fs::write(&file, texts.concat()).expect("written");
    let path = file.to_str().expect("text");
    let output = weir(folder.path(), &["validate", "-f", path]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = stderr(&output);
    for words in [
        "ResiliencePolicy shop/two does not hold everywhere in second: Service shop/first speaks for port 8080 of shop/it-0",
        "ResiliencePolicy shop/all does not hold everywhere in shop: Service shop/first only observes, as shop/one says",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert!(!told.contains("shop/one does not"), "{told}");
}

/// They went through as they were, and nobody was told.
#[tokio::test]
async fn inject_and_uninject_do_not_pass_over_what_should_have_a_pod() {
    let folder = folder();
    let file = folder.path().join("objects.yaml");
    let path = file.to_str().expect("text");
    let item = "metadata: {name: cart}, spec: {template: {spec: {containers: [{name: cart}]}}}";
    let list =
        |item: &str| format!("apiVersion: apps/v1\nkind: DeploymentList\nitems: [{{{item}}}]\n");
    for text in [
        list(item),
        list(&format!("apiVersion: apps/v1, kind: Deployment, {item}")),
    ] {
        std::fs::write(&file, text).expect("written");
        let output = weir(folder.path(), &["inject", "-f", path]).await;
        let told = stderr(&output);
        assert!(told.contains("deployment default/cart: injected"), "{told}");
        assert!(stdout(&output).contains("weir-proxy"));
        std::fs::write(&file, &output.stdout).expect("written");
        let output = weir(folder.path(), &["uninject", "-f", path]).await;
        assert!(
            !stdout(&output).contains("weir-proxy"),
            "{}",
            stderr(&output)
        );
    }
    for (text, words) in [
        (
            "kind: Deployment\nmetadata: {name: a}\nspec: {tmeplate: {}}",
            "deployment default/a: refused: there is no pod at spec.template",
        ),
        (
            "kind: CronJob\nmetadata: {name: a}\nspec: {}",
            "there is no pod at spec.jobTemplate.spec.template",
        ),
        ("# nothing\n", "there is nothing in it"),
        ("- a\n", "expected objects of Kubernetes only"),
    ] {
        std::fs::write(&file, text).expect("written");
        for command in ["inject", "uninject"] {
            let output = weir(folder.path(), &[command, "-f", path]).await;
            assert_eq!(
                (output.status.code(), stdout(&output).as_str()),
                (Some(1), "")
            );
            assert!(stderr(&output).contains(words), "{}", stderr(&output));
        }
    }
}

/// The library that reads the file spoke of its own settings.
#[tokio::test]
async fn inject_shows_where_a_file_is_broken_as_validate_does() {
    let folder = folder();
    let file = folder.path().join("pods.yaml");
    let path = file.to_str().expect("text");
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a}]}\n";
    for (text, words) in [
        (
            format!("{pod}spec: {{}}\n").into_bytes(),
            "`spec` is written twice in the same map",
        ),
        (
            format!("{pod}---\na: [\n").into_bytes(),
            "this `[` is never closed",
        ),
        (
            [pod.as_bytes(), b"# \xff\n"].concat(),
            "the file is not UTF-8",
        ),
    ] {
        std::fs::write(&file, text).expect("written");
        for command in ["inject", "uninject"] {
            let output = weir(folder.path(), &[command, "-f", path]).await;
            let told = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert_eq!(stdout(&output), "");
            assert!(told.contains(words), "{told}");
            assert!(told.contains("nothing is written"), "{told}");
        }
    }
}

/// 1,024 documents were too many for it, and a merged map is what kubectl reads, too.
#[tokio::test]
async fn inject_takes_what_kubectl_would() {
    let folder = folder();
    let file = folder.path().join("pods.yaml");
    let path = file.to_str().expect("text");
    let pod = |n| {
        format!(
            "kind: Pod\nmetadata: {{name: p{n}}}\nbase: &base {{image: a}}\nspec: {{containers: [{{<<: *base, name: a}}]}}\n"
        )
    };
    let many: Vec<String> = (0..1500).map(pod).collect();
    std::fs::write(&file, many.join("---\n")).expect("written");
    let output = weir(folder.path(), &["inject", "-f", path]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output).matches("name: weir-proxy").count(), 1500);
    let merged = "  - name: a\n    image: a\n";
    assert_eq!(stdout(&output).matches(merged).count(), 1500);
}

/// Policies lie beside the definitions of other people's kinds, which are large and deep.
#[tokio::test]
async fn validate_passes_over_what_is_large_deep_or_merged_and_somebody_elses() {
    let folder = folder();
    let policy = "apiVersion: weir.dev/v1alpha1\nkind: ResiliencePolicy\nmetadata: {name: a}\nspec: {targetRefs: [{kind: Service, name: a}], outbound: {deadline: 2s}}\n";
    let head = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\n";
    let deep = format!("{head}spec: {}1{}\n", "{a: ".repeat(80), "}".repeat(80));
    let block: String = (0..70)
        .map(|depth| format!("{}a:\n", "  ".repeat(depth + 1)))
        .collect();
    let block = format!("{head}spec:\n{block}");
    let wide = format!("{head}spec: [{}]\n", "1, ".repeat(120_000));
    let long = format!("{head}spec: {:?}\n", "x".repeat(2 << 20));
    let merged = format!("{head}base: &base {{a: 1}}\nspec: {{<<: *base, b: 2}}\n");
    for (name, other) in [
        ("deep", deep),
        ("block", block),
        ("wide", wide),
        ("long", long),
        ("merged", merged),
    ] {
        let file = folder.path().join(format!("{name}.yaml"));
        // What comes after it is still read.
        let bad = policy
            .replace("2s", "soon")
            .replace("{name: a}", "{name: b}");
        std::fs::write(&file, [other.as_str(), policy, bad.as_str()].join("---\n"))
            .expect("written");
        let output = weir(
            folder.path(),
            &["validate", "-f", file.to_str().expect("text")],
        )
        .await;
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {told}");
        assert!(told.contains("found \"soon\""), "{name}: {told}");
        assert!(told.ends_with("1 mistake in 1 file\n"), "{name}: {told}");
    }
}
