//! A Deployment of `lab-echo` with its Service, and calls to it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use weir_lab::{Builder, Lab, Result};

/// Long enough for a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Pods `NAME-0`, `NAME-1`, … and a Service `NAME` on port 80; `more` goes into the pod's spec and
/// `container` into its container, as flow YAML.
pub(crate) fn deployment(name: &str, replicas: u32, more: &str, container: &str) -> String {
    let program = env!("CARGO_BIN_EXE_lab-echo");
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: tests}}
spec:
  replicas: {replicas}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 5
      {more}
      containers:
      - name: echo
        image: lab/echo
        command: ['{program}', '8080']
        ports: [{{name: http, containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /health, port: http}}, periodSeconds: 1, failureThreshold: 1}}
        {container}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: tests}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 80, targetPort: http}}]
"
    )
}

pub(crate) fn builder() -> Builder {
    Lab::builder().program(env!("CARGO_BIN_EXE_weir-lab"))
}

pub(crate) fn up(yaml: &str) -> Lab {
    let lab = builder().yaml(yaml).start().expect("the lab starts");
    lab.wait_ready(PATIENCE).expect("its pods become ready");
    lab
}

/// The body of a GET, from the node or from a pod.
pub(crate) fn get(lab: &Lab, from: Option<&str>, to: &str, path: &str) -> Result<String> {
    let stream = lab.dial(from, to)?;
    Ok(get_over(stream, path).unwrap_or_default())
}

pub(crate) fn get_over(mut stream: TcpStream, path: &str) -> std::io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: lab\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
    Ok(body.unwrap_or_default().to_owned())
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
