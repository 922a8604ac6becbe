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
