//! Sends each arrival when it is due, from a thread of its own.
//!
//! Tokio's timers round up to the next millisecond. Measured from the intended time that would add half a
//! millisecond to every latency, more than what a proxy does. A thread that sleeps in the kernel wakes
//! within some ten microseconds, and costs nothing between.

use std::num::NonZeroU64;
use std::time::Duration;

use rustix::thread::{Timespec, nanosleep, set_current_timer_slack};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::schedule::{Arrival, Schedule};

/// Due but not yet taken. A full queue delays arrivals, whose latency counts from when they were due.
const QUEUE_MAX: usize = 1024;
/// How soon an abandoned pacer notices.
const NAP_MAX: Duration = Duration::from_millis(50);

/// The receiver gets each arrival when it is due, and the end of the schedule as the end of the channel.
pub(crate) fn start(schedule: Schedule, start: Instant) -> mpsc::Receiver<Arrival> {
    let (due, arrivals) = mpsc::channel(QUEUE_MAX);
    tokio::task::spawn_blocking(move || {
        // The kernel's default lets a sleep end 50 µs late; not worth failing for.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        for arrival in schedule {
            if !sleep_until(start + arrival.at, &due) || due.blocking_send(arrival).is_err() {
                return;
            }
        }
    });
    arrivals
}

/// False when nobody waits any more.
fn sleep_until(time: Instant, due: &mpsc::Sender<Arrival>) -> bool {
    loop {
        if due.is_closed() {
            return false;
        }
        let wait = time.saturating_duration_since(Instant::now());
        if wait.is_zero() {
            return true;
        }
        let nap = wait.min(NAP_MAX);
        // Woken early by a signal, or not: the clock decides.
        let _ = nanosleep(&Timespec {
            tv_sec: 0,
            tv_nsec: nap.subsec_nanos().into(),
        });
    }
}
