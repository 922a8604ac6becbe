//! What a kubelet does: order of containers, restarts, scale, identity of a pod, its end.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::echo::{PATIENCE, builder, deployment, eventually, get, up};

#[test]
fn an_app_that_is_killed_is_started_again_in_the_same_pod() {
    let lab = up(&deployment("web", 1, "", ""));
    let before = lab.pod("web").unwrap();
    lab.kill("web").unwrap();
    eventually("it was started again", || {
        let pod = lab.pod("web").unwrap();
        pod.ready && pod.containers[0].state.restarts == 1
    });
    let after = lab.pod("web").unwrap();
    assert_eq!((before.address, before.uid), (after.address, after.uid));
    assert!(lab.log("web-0", "echo").contains("ended by signal 9"));
}

#[test]
fn a_pod_that_is_killed_whole_is_replaced_by_another_of_its_name() {
    let lab = up(&deployment("web", 1, "", ""));
    let before = lab.pod("web").unwrap();
    lab.kill_pod("web/0").unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    let after = lab.pod("web/0").unwrap();
    assert_ne!(before.uid, after.uid);
    assert_ne!(before.address, after.address);
    assert_eq!(get(&lab, None, "web:80", "/").unwrap(), "web-0");
}

#[test]
fn an_app_that_fails_its_liveness_probe_is_restarted() {
    let liveness = "livenessProbe: {httpGet: {path: /health, port: 8080}, periodSeconds: 1, failureThreshold: 2}";
    let lab = up(&deployment("web", 1, "", liveness));
    get(&lab, None, "web-0:8080", "/sick").unwrap();
    eventually("it was restarted and is well", || {
        let pod = lab.pod("web").unwrap();
        pod.ready && pod.containers[0].state.restarts == 1
    });
}

#[test]
fn an_app_that_keeps_crashing_is_not_restarted_in_a_hot_loop() {
    let lab = up(&deployment("web", 1, "", ""));
    let restarts = || lab.pod("web").unwrap().containers[0].state.restarts;
    for crash in 1..=2 {
        eventually("it runs", || lab.pod("web").unwrap().ready);
        let begun = std::time::Instant::now();
        let _ = get(&lab, None, "web-0:8080", "/crash");
        eventually("it was restarted", || restarts() == crash);
        if crash == 2 {
            assert!(begun.elapsed().as_millis() > 700, "{:?}", begun.elapsed());
        }
    }
}

#[test]
fn scaling_adds_pods_and_takes_away_those_with_the_highest_numbers() {
    let lab = up(&deployment("web", 1, "", ""));
    let names = || {
        let pods = lab.status().unwrap().pods;
        pods.into_iter().map(|pod| pod.name).collect::<Vec<_>>()
    };
    lab.scale("web", 3).unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    assert_eq!(names(), ["web-0", "web-1", "web-2"]);
    lab.scale("web", 2).unwrap();
    assert_eq!(names(), ["web-0", "web-1"]);
}

/// An init container that must be done, then a sidecar that must have started, then the app; and
/// the other way round at the end.
#[test]
fn init_containers_come_first_and_a_native_sidecar_outlives_its_app() {
    let program = env!("CARGO_BIN_EXE_lab-echo");
    let folder = tempfile::tempdir().unwrap();
    let everyone = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), everyone).unwrap();
    let journal = folder.path().join("journal");
    let journal_env = format!("{{name: JOURNAL, value: '{}'}}", journal.display());
    let more = format!(
        "volumes: [{{name: shared, emptyDir: {{}}}}]
      initContainers:
      - name: prepare
        command: [sh, -c, 'echo prepared > /var/run/secrets/tests/shared/file']
        volumeMounts: [{{name: shared, mountPath: /var/run/secrets/tests/shared}}]
      - name: helper
        restartPolicy: Always
        command: ['{program}', '9000']
        env: [{journal_env}, {{name: NAME, value: sidecar}}]
        startupProbe: {{httpGet: {{path: /, port: 9000}}, periodSeconds: 1}}"
    );
    let container = format!(
        "env: [{journal_env}, {{name: NAME, value: app}}, {{name: TERM_MILLISECONDS, value: '300'}}]
        volumeMounts: [{{name: shared, mountPath: /var/run/secrets/tests/shared}}]
        lifecycle: {{preStop: {{exec: {{command: [sh, -c, 'echo app preStop >> {}; chmod 666 {0}']}}}}}}",
        journal.display()
    );
    let lab = up(&deployment("web", 1, &more, &container));
    let file = get(
        &lab,
        None,
        "web-0:8080",
        "/file/var/run/secrets/tests/shared/file",
    );
    assert_eq!(file.unwrap(), "prepared\n");
    assert!(
        !std::path::Path::new("/var/run/secrets/tests").exists(),
        "mount points are made in the pod, not on the machine"
    );
    lab.down().unwrap();
    let journal = std::fs::read_to_string(journal).unwrap();
    let events: Vec<&str> = journal.lines().collect();
    let expected = [
        "app preStop",
        "app asked to end",
        "app ending",
        "sidecar asked to end",
        "sidecar ending",
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_pod_knows_itself_by_the_downward_api_and_by_what_the_lab_adds() {
    let container = "env:
        - {name: OWN_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: OWN_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}";
    let lab = builder()
        .yaml(deployment("web", 1, "", container))
        .env("web", "KNOB", "7")
        .start()
        .unwrap();
    lab.wait_ready(PATIENCE).unwrap();
    let variable = |name: &str| get(&lab, None, "web-0:8080", &format!("/env/{name}")).unwrap();
    assert_eq!(
        variable("OWN_IP"),
        lab.pod("web").unwrap().address.to_string()
    );
    assert_eq!(variable("OWN_NAME"), "web-0");
    assert_eq!(variable("KNOB"), "7");
}

#[test]
fn a_mistake_in_the_manifest_is_told_and_nothing_is_started() {
    let error = builder()
        .yaml("kind: Deployment\nmetadata: {name: a}")
        .start();
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("Deployment a: without `spec.template`"),
        "{error}"
    );
    let nothing_to_run =
        "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: nginx}]}";
    let lab = builder().yaml(nothing_to_run).start().unwrap();
    let error = lab
        .wait_ready(std::time::Duration::from_secs(1))
        .unwrap_err()
        .to_string();
    assert!(error.contains("image nginx has no folder here"), "{error}");
}

/// Debian has `nft` in /usr/sbin, which /etc/profile gives to nobody but root: it was found there and could not be run.
#[test]
fn a_lab_starts_for_a_user_whose_path_leaves_out_what_is_for_root() {
    let manifest = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(manifest.path(), deployment("web", 1, "", "")).unwrap();
    let lab = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["up", "--mesh", "off", "--rootless", "--for", "1"])
        .arg(manifest.path())
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&lab.stderr);
    assert!(lab.status.success(), "{said}");
}
