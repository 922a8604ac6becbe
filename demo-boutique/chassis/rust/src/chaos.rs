//! Chaos knobs: faults of the service itself, so that they can be told from faults the mesh injects.
//!
//! ```text
//! call ─▶ frozen? wait ─▶ sleep latency_ms ─▶ error_pct? fail ─▶ hold a slot for service_ms ─▶ the call itself
//! ```
//!
//! `slots` × `service_ms` is a capacity that costs no processor time: calls queue for a slot as they would
//! for a thread, and like a thread a slot does not see its caller leave: work that nobody waits for any
//! more is still done, which is how an overloaded service wastes its capacity.
//! Health and the knobs are never affected: a frozen service says SERVING, which is the
//! failure that only watching real calls can find.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tonic::{Code, Request, Response, Status};

use crate::pb;

const PAUSE_MS_MAX: i32 = 60_000;
const SLOTS_MAX: i32 = 10_000;
const WORK_MAX: usize = 4096;

/// Valid knobs, ready to act on. The default is no fault at all.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    knobs: pb::Knobs,
    /// Of these knobs only: closed when others replace them, which lets the queue go.
    slots: Option<Arc<Semaphore>>,
}

impl Faults {
    pub fn parse(knobs: pb::Knobs) -> Result<Self, String> {
        within("latency_ms", knobs.latency_ms, PAUSE_MS_MAX)?;
        within("error_pct", knobs.error_pct, 100)?;
        within("code", knobs.code, Code::Unauthenticated as i32)?;
        within("slots", knobs.slots, SLOTS_MAX)?;
        within("service_ms", knobs.service_ms, PAUSE_MS_MAX)?;
        let slots = usize::try_from(knobs.slots).ok().filter(|slots| *slots > 0);
        Ok(Self {
            knobs,
            slots: slots.map(|slots| Arc::new(Semaphore::new(slots))),
        })
    }

    pub fn knobs(&self) -> pb::Knobs {
        self.knobs
    }

    fn error(&self) -> Status {
        let code = match self.knobs.code {
            0 => Code::Unavailable,
            code => Code::from_i32(code),
        };
        Status::new(code, "chaos: error_pct")
    }
}

fn within(name: &str, value: i32, max: i32) -> Result<(), String> {
    match (0..=max).contains(&value) {
        true => Ok(()),
        false => Err(format!("{name} is {value}, expected 0 to {max}")),
    }
}

/// What is in force now. Clones share it.
#[derive(Clone, Debug)]
pub struct Chaos {
    faults: Arc<watch::Sender<Faults>>,
    /// Work at slots and in the queue for them, also that of callers who left.
    work: Arc<Semaphore>,
}

impl Chaos {
    pub fn new(faults: Faults) -> Self {
        Self {
            faults: Arc::new(watch::Sender::new(faults)),
            work: Arc::new(Semaphore::new(WORK_MAX)),
        }
    }

    pub fn set(&self, faults: Faults) {
        let before = self.faults.send_replace(faults);
        if let Some(slots) = before.slots {
            slots.close();
        }
    }

    /// Every call goes through here first.
    pub async fn strike(&self) -> Result<(), Status> {
        let faults = self.thawed().await;
        pause(faults.knobs.latency_ms).await;
        if fastrand::i32(0..100) < faults.knobs.error_pct {
            return Err(faults.error());
        }
        if faults.knobs.service_ms > 0 {
            self.work(faults).await?;
        }
        Ok(())
    }

    async fn thawed(&self) -> Faults {
        let mut current = self.faults.subscribe();
        let faults = current.wait_for(|faults| !faults.knobs.freeze).await;
        faults.expect("self holds the sender").clone()
    }

    async fn work(&self, faults: Faults) -> Result<(), Status> {
        let permit = Arc::clone(&self.work).try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::resource_exhausted(format!("{WORK_MAX} calls wait for a slot already"))
        })?;
        let work = tokio::spawn(async move {
            let _permit = permit;
            // An error says that the knobs were replaced meanwhile: the queue is no more.
            let _slot = match &faults.slots {
                Some(slots) => slots.acquire().await.ok(),
                None => None,
            };
            pause(faults.knobs.service_ms).await;
        });
        work.await
            .map_err(|error| Status::internal(error.to_string()))
    }
}

async fn pause(milliseconds: i32) {
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds.unsigned_abs().into())).await;
    }
}

#[tonic::async_trait]
impl pb::chaos_server::Chaos for Chaos {
    async fn set(&self, request: Request<pb::Knobs>) -> Result<Response<pb::Knobs>, Status> {
        let faults = Faults::parse(request.into_inner()).map_err(Status::invalid_argument)?;
        let knobs = faults.knobs();
        Chaos::set(self, faults);
        Ok(Response::new(knobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn chaos(knobs: pb::Knobs) -> Chaos {
        Chaos::new(Faults::parse(knobs).expect("valid knobs"))
    }

    #[tokio::test(start_paused = true)]
    async fn slots_and_service_time_are_a_capacity() {
        let chaos = chaos(pb::Knobs {
            slots: 2,
            service_ms: 100,
            ..Default::default()
        });
        let start = Instant::now();
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let chaos = chaos.clone();
                tokio::spawn(async move { chaos.strike().await })
            })
            .collect();
        for call in calls {
            call.await.expect("no panic").expect("no error asked for");
        }
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(300),
            "six calls took {took:?}"
        );
        assert!(took < Duration::from_millis(310), "six calls took {took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_does_not_see_its_caller_leave() {
        let chaos = chaos(pb::Knobs {
            slots: 1,
            service_ms: 1_000,
            ..Default::default()
        });
        let gone = tokio::time::timeout(Duration::from_millis(10), chaos.strike()).await;
        gone.expect_err("the caller left before the work was done");
        let start = Instant::now();
        chaos.strike().await.expect("no error asked for");
        assert!(start.elapsed() >= Duration::from_millis(1_980));
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_call_waits_until_it_is_thawed() {
        let chaos = chaos(pb::Knobs {
            freeze: true,
            ..Default::default()
        });
        let call = tokio::spawn({
            let chaos = chaos.clone();
            async move { chaos.strike().await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!call.is_finished());
        chaos.set(Faults::default());
        call.await.expect("no panic").expect("no error asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn new_knobs_dissolve_the_queue_of_the_old_ones() {
        let chaos = chaos(pb::Knobs {
            slots: 1,
            service_ms: 60_000,
            ..Default::default()
        });
        let start = Instant::now();
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let chaos = chaos.clone();
                tokio::spawn(async move { chaos.strike().await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        chaos.set(Faults::default());
        for call in calls {
            call.await.expect("no panic").expect("no error asked for");
        }
        assert!(
            start.elapsed() < Duration::from_secs(61),
            "the queue was served one by one"
        );
    }

    #[tokio::test]
    async fn the_share_of_errors_and_their_code_are_what_was_asked() {
        fastrand::seed(7);
        let chaos = chaos(pb::Knobs {
            error_pct: 30,
            code: Code::ResourceExhausted as i32,
            ..Default::default()
        });
        let mut failed = 0;
        for _ in 0..2_000 {
            if let Err(status) = chaos.strike().await {
                assert_eq!(status.code(), Code::ResourceExhausted);
                failed += 1;
            }
        }
        assert!((500..700).contains(&failed), "{failed} of 2000 failed");
    }

    #[test]
    fn knobs_out_of_range_are_refused_by_name() {
        let knobs = pb::Knobs {
            slots: -1,
            ..Default::default()
        };
        let refusal = Faults::parse(knobs).expect_err("minus one slot");
        assert_eq!(refusal, "slots is -1, expected 0 to 10000");
    }
}
