//! G11: endless answers whose readers stop reading. What a proxy takes from the app meanwhile, it has to keep somewhere.
//!
//! ```text
//!   warm-up ──▶ readers begin, take 256 KiB, stop ──▶ (second half of the fault) 10 KB/s ──▶ readers go
//! ```
//!
//! Others' requests go on all the time, through the same proxy.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::arguments::Effort;
use crate::client::Way;
use crate::driver::{Driven, Load, drive};
use crate::evidence::{Evidence, Held};
use crate::outage::{LEAD, Outage, Running};
use crate::replica::{FLOOD, KERNEL_BUFFER, Replica};
use crate::schedule::sends;
use crate::subject::{Lane, PORT, Ports, Proxies, World};
use crate::trouble::Trouble;

/// Each reads so much before it stops: enough for windows to open, and little enough for the driver to remain on time.
const FIRST_BYTES: u64 = 256 << 10;
/// One after the other: together they would take the driver's core for half a second.
const NEXT_READER: Duration = Duration::from_millis(30);
/// A second, when it reads on.
const SLOW_BYTES: usize = 10_000;
/// To know what is held where there is no proxy.
const DIRECT_READERS: u64 = 4;
const DIRECT_SETTLES: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);

/// The load of others, and what they go to, is that of an outage in which nothing breaks.
#[derive(Clone, Copy, Debug)]
pub struct Backpressure {
    pub others: Outage,
    pub readers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Begin,
    Stopped,
    Slow,
}

impl Backpressure {
    pub fn prepare(
        &self,
        lane: Lane,
        world: &Rc<World>,
        ports: &mut Ports,
        effort: &Effort,
        seed: u64,
    ) -> Result<Running, Trouble> {
        let outage = &self.others;
        let replicas = (0..outage.replicas).map(|which| {
            let address = (lane.replica(which), PORT).into();
            let replica = world.backends.replica(address, outage.plan, None, seed);
            replica.map_err(Trouble::during("a replica"))
        });
        let replicas: Vec<Replica> = replicas.collect::<Result<_, _>>()?;
        let callers = lane.callers(world, ports, 1, outage.replicas, &outage.ask)?;
        let effort = effort.at_least(outage.fault, outage.after);
        Ok(Box::pin(run(*self, lane, effort, seed, replicas, callers)))
    }
}

async fn run(
    plan: Backpressure,
    lane: Lane,
    effort: Effort,
    seed: u64,
    replicas: Vec<Replica>,
    mut proxies: Proxies,
) -> Result<Evidence, Trouble> {
    let outage = &plan.others;
    let phases = [effort.warm_up, effort.fault, effort.after];
    let load = Load {
        ways: proxies.ways.clone(),
        method: outage.ask.method(),
        sends: sends(outage.arrivals, &outage.sources(), phases, seed),
    };
    let start = Instant::now() + LEAD;
    let fault = effort.warm_up..effort.warm_up + effort.fault;
    let direct = Way {
        from: lane.caller(0),
        to: (lane.replica(0), PORT).into(),
    };
    let reading = async {
        sleep_until(start).await;
        let without = held_without(direct, &replicas[0]).await?;
        sleep_until(start + fault.start).await;
        let mut held = hold(plan.readers, &proxies, &replicas, effort.fault).await?;
        held.bytes_each = held.bytes_each.saturating_sub(without);
        std::io::Result::Ok(held)
    };
    let (driven, held) = tokio::join!(drive(load, start), reading);
    let held = held.map_err(Trouble::during("a reader"))?;
    proxies
        .are_alive()
        .map_err(Trouble::during(lane.kind.name()))?;
    let Driven { samples, late } = driven;
    Ok(Evidence {
        samples,
        // Floods and other requests arrive at the same replicas: how many says nothing here.
        arrivals: Vec::new(),
        work: HashMap::new(),
        again: Vec::new(),
        fault,
        end: effort.total(),
        capacity: outage.plan.capacity() * replicas.len() as f64,
        begun_too_late: None,
        held: Some(held),
        deadline: outage.ask.deadline,
        late,
        cpu: proxies.cpu(),
    })
}

/// What the two ends themselves hold of one answer, in their own buffers and the kernel's: with no proxy in between.
async fn held_without(way: Way, replica: &Replica) -> std::io::Result<u64> {
    let read = Arc::new(AtomicU64::new(0));
    let (pace, _) = watch::channel(Pace::Begin);
    let mut reading = JoinSet::new();
    for _ in 0..DIRECT_READERS {
        reading.spawn(reader(way, read.clone(), pace.subscribe()));
    }
    sleep(DIRECT_SETTLES).await;
    match reading.try_join_next() {
        Some(Ok(Err(error))) => Err(error),
        _ => Ok((replica.flooded() - read.load(Ordering::Relaxed)) / DIRECT_READERS),
    }
}

async fn hold(
    readers: usize,
    proxies: &Proxies,
    replicas: &[Replica],
    lasts: Duration,
) -> std::io::Result<Held> {
    let resident = proxies.resident();
    let read = Arc::new(AtomicU64::new(0));
    let (pace, _) = watch::channel(Pace::Begin);
    let mut reading = JoinSet::new();
    let sent_before: u64 = replicas.iter().map(Replica::flooded).sum();
    let begun = Instant::now();
    for _ in 0..readers {
        reading.spawn(reader(proxies.ways[0], read.clone(), pace.subscribe()));
        sleep(NEXT_READER).await;
    }
    let all = FIRST_BYTES * readers as u64;
    while read.load(Ordering::Relaxed) < all && begun.elapsed() < lasts / 4 {
        if let Some(Ok(Err(error))) = reading.try_join_next() {
            return Err(error);
        }
        sleep(TICK).await;
    }
    pace.send_replace(Pace::Stopped);
    let stopped = Instant::now();
    let sent = || replicas.iter().map(Replica::flooded).sum::<u64>() - sent_before;
    let (mut last, mut blocked_after) = (sent(), Duration::ZERO);
    let mut resident_max = resident;
    while begun.elapsed() < lasts / 2 {
        sleep(TICK).await;
        resident_max = resident_max.max(proxies.resident());
        let now = sent();
        if now > last {
            (last, blocked_after) = (now, stopped.elapsed());
        }
    }
    let in_flight = last.saturating_sub(read.load(Ordering::Relaxed)) / readers as u64;
    let before = read.load(Ordering::Relaxed);
    pace.send_replace(Pace::Slow);
    sleep(lasts.saturating_sub(begun.elapsed())).await;
    let resumed = read.load(Ordering::Relaxed) > before;
    resident_max = resident_max.max(proxies.resident());
    // A reader that was cut off cannot have held anything.
    let cut_off = reading.try_join_next().is_some();
    Ok(Held {
        bytes_each: in_flight,
        blocked_after,
        resident_growth: resident_max.saturating_sub(resident),
        resumed: resumed && !cut_off,
    })
}

/// Ends with an error, or when it is dropped.
async fn reader(
    way: Way,
    read: Arc<AtomicU64>,
    mut pace: watch::Receiver<Pace>,
) -> std::io::Result<()> {
    let mut stream = connect(way).await?;
    let head = format!("GET {FLOOD} HTTP/1.1\r\nhost: {}\r\n\r\n", way.to);
    stream.write_all(head.as_bytes()).await?;
    let mut buffer = vec![0; 16 * 1024];
    let mut own = 0;
    loop {
        let now = *pace.borrow();
        let wanted = match now {
            Pace::Begin if own < FIRST_BYTES => buffer.len(),
            Pace::Begin | Pace::Stopped => {
                // Its sender lives as long as this task.
                let _ = pace.changed().await;
                continue;
            }
            Pace::Slow => {
                sleep(TICK).await;
                SLOW_BYTES / 10
            }
        };
        match stream.read(&mut buffer[..wanted]).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                own += count as u64;
                read.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}

/// With a small buffer in the kernel, so that it is the proxy that has to keep what is not read.
async fn connect(way: Way) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_recv_buffer_size(KERNEL_BUFFER)?;
    socket.bind((way.from, 0).into())?;
    socket.connect(way.to).await
}
