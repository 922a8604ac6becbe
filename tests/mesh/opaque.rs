//! Protocols that are not HTTP: Redis, servers that speak first, bytes with half-close.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{PATIENCE, World, eventually, labelled};

const REDIS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: redis, namespace: tests}
spec:
  replicas: 1
  template:
    metadata: {labels: {app: redis}}
    spec:
      containers:
      - name: redis
        image: redis:7
        securityContext: {runAsUser: 999}
        ports: [{containerPort: 6379}]
        readinessProbe: {tcpSocket: {port: 6379}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: redis, namespace: tests}
spec:
  selector: {app: redis}
  ports: [{name: redis, port: 6379}]
";

/// The greeting has this long, on the way through both sidecars.
const DELAY_MAX: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_carried_over_mutual_tls() {
    let world = World::with(1, "", REDIS);
    let labels = [
        ("direction", "outbound"),
        ("service", "tests/redis:6379"),
        ("tls", "mtls"),
        ("protocol", "opaque"),
    ];
    let carried = || {
        world
            .metrics("caller")
            .sum("weir_connections_total", &labels)
    };
    // The caller's sidecar gets to know a service when it is first used.
    eventually("the caller knows Redis", || {
        drop(world.dial("redis:6379"));
        carried() > 0.0
    })
    .await;
    let mut stream = world.dial("redis:6379");
    let mut ask = async |question: &[u8], answer: &[u8]| {
        stream.write_all(question).await.unwrap();
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(answer)
        );
    };
    let begun = Instant::now();
    ask(b"PING\r\n", b"+PONG\r\n").await;
    assert!(begun.elapsed() < DELAY_MAX, "{:?}", begun.elapsed());
    ask(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", b"+OK\r\n").await;
    ask(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"$5\r\nvalue\r\n").await;
    let plain = [labels[0], labels[1], ("tls", "none")];
    let plain = world
        .metrics("caller")
        .sum("weir_connections_total", &plain);
    assert_eq!(plain, 0.0, "none of them went in plain text");
}

/// Port 25 is known for it; 2525 is not, and nobody says what it speaks.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_first_is_not_kept_waiting() {
    let world = World::new();
    for to in ["server:25", "server:2525"] {
        // The first connection teaches the sidecar the service; what is measured is detection.
        for number in 0..5 {
            let begun = Instant::now();
            let mut stream = world.dial(to);
            let mut greeting = [0; 15];
            stream.read_exact(&mut greeting).await.unwrap();
            let took = begun.elapsed();
            assert_eq!(&greeting, b"220 lab ready\r\n");
            println!("{to}: greeting {number} after {took:?}");
            assert!(took < DELAY_MAX, "{to}: {took:?}");
            stream.write_all(b"EHLO caller\r\n").await.unwrap();
            let mut echo = [0; 13];
            stream.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, b"EHLO caller\r\n");
        }
    }
}

/// Its Service says HTTP, of which the client would have to send a request first.
#[tokio::test(flavor = "multi_thread")]
async fn ports_that_a_pods_annotation_calls_opaque_are_whatever_its_service_says() {
    let pod = labelled("mail", "app: mail", 1).replace(
        "metadata: {labels:",
        "metadata: {annotations: {config.weir.dev/opaque-ports: \"2525, 7000-7001\"}, labels:",
    );
    let service = "
apiVersion: v1
kind: Service
metadata: {name: mail, namespace: tests}
spec:
  selector: {app: mail}
  ports: [{name: http-mail, port: 80, targetPort: 2525}]
";
    let world = World::with(1, "", &format!("{pod}{service}"));
    for _ in 0..3 {
        let greeted = async {
            let mut stream = world.dial("mail:80");
            let mut greeting = [0; 15];
            stream.read_exact(&mut greeting).await?;
            std::io::Result::Ok(greeting)
        };
        let greeted = tokio::time::timeout(Duration::from_secs(5), greeted).await;
        let greeted = greeted
            .expect("it is not kept waiting")
            .expect("bytes pass");
        assert_eq!(&greeted, b"220 lab ready\r\n");
    }
    let labels = [
        ("direction", "outbound"),
        ("service", "tests/mail:80"),
        ("tls", "mtls"),
        ("protocol", "opaque"),
    ];
    let caller = world.metrics("caller");
    assert!(caller.sum("weir_connections_total", &labels) >= 3.0);

    // A port that no Service names, from outside the mesh: what looks like HTTP is not looked at.
    let address = world.lab.pod("mail").expect("there is such a pod").address;
    let strange = b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n";
    let echoed = tokio::task::block_in_place(|| {
        let address = std::net::SocketAddr::new(address, 7000).to_string();
        let mut stream = world.lab.dial(None, &address).expect("it is taken");
        stream.set_read_timeout(Some(PATIENCE))?;
        std::io::Write::write_all(&mut stream, strange)?;
        let mut echo = vec![0; strange.len()];
        std::io::Read::read_exact(&mut stream, &mut echo)?;
        std::io::Result::Ok(echo)
    });
    let echoed = echoed.expect("it comes back");
    assert_eq!(
        String::from_utf8_lossy(&echoed),
        String::from_utf8_lossy(strange)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_pass_as_they_are_and_so_does_each_half_of_the_end() {
    let world = World::new();
    // Declared opaque, and found out to be.
    for to in ["server:7000", "server:7070"] {
        let stream = world.dial(to);
        let (mut read, mut write) = stream.into_split();
        let sent: Vec<u8> = (0..4 * 1024 * 1024u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writing = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
            // Kept: dropping it would end both halves.
            write
        });
        let mut got = Vec::new();
        let reading = tokio::time::timeout(Duration::from_secs(20), read.read_to_end(&mut got));
        reading.await.expect("the end passes").unwrap();
        assert!(
            got == expected,
            "{to}: {} of {} bytes",
            got.len(),
            expected.len()
        );
        writing.await.unwrap();
    }
}

const TWO: &str = "
apiVersion: weir.dev/v1alpha1
kind: ResiliencePolicy
metadata: {name: server, namespace: tests}
spec:
  targetRefs: [{kind: Service, name: server, sectionName: tcp-echo}]
  outbound: {limits: {connections: 2}}
";

/// A connection that is open, as bytes that come back show; `None`: it was refused.
async fn echoes(world: &World) -> Option<TcpStream> {
    // Whom the sidecar resets it may have reset before the dialling has looked.
    let mut stream = world.try_dial("server:7000")?;
    let exchanged = async {
        stream.write_all(b"hello").await?;
        stream.read_exact(&mut [0; 5]).await
    };
    let exchanged = tokio::time::timeout(PATIENCE, exchanged).await;
    let exchanged = exchanged.expect("an answer or an end");
    exchanged.is_ok().then_some(stream)
}

/// Planted: a cap that counts none, and one that does not forget those that are closed.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_opaque_connections_are_open_as_may_be_and_one_that_closes_makes_room() {
    let world = World::with(1, TWO, "");
    let refused = || {
        let labels = [
            ("direction", "outbound"),
            ("reason", "too-many-opaque-connections"),
        ];
        let metrics = world.metrics("caller");
        metrics.sum("weir_rejected_connections_total", &labels)
    };
    let first = echoes(&world).await.expect("there is room");
    let second = echoes(&world).await.expect("there is room");
    let begun = Instant::now();
    for number in 1..=3 {
        assert!(echoes(&world).await.is_none(), "the cap is two");
        eventually("it is counted", || refused() == f64::from(number)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "at once: {:?}",
        begun.elapsed()
    );

    drop(second);
    let begun = Instant::now();
    let third = loop {
        if let Some(stream) = echoes(&world).await {
            break stream;
        }
        assert!(begun.elapsed() < PATIENCE, "its place is not given back");
    };
    assert!(echoes(&world).await.is_none(), "and it is one place");
    drop((first, third));
}
