//! A peer that takes nothing of what is sent to it.
//!
//! Flow control lets a reader take its time, and a slow subscriber is none of our business. One that has read nothing for
//! minutes holds memory, a stream and the place of its call for nothing (security.md S-1f).

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// What has not moved for so long has ended: found out by twice that. A subscriber that takes half a second for each of
/// the messages that one window holds is silent for a minute or two.
pub const STANDING_MAX: Duration = Duration::from_secs(5 * 60);

/// Of one direction. Costs nothing until its peer has no room.
#[derive(Default)]
pub struct Standing(Option<Waiting>);

struct Waiting {
    timer: Pin<Box<Sleep>>,
    /// By when the timer was set.
    moved: u64,
}

impl Standing {
    /// Asked while there is no room: ready when nothing has moved for too long. `moved` grows with all that is taken.
    pub fn poll(&mut self, moved: u64, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = self.0.get_or_insert_with(|| Waiting {
            timer: Box::pin(sleep(STANDING_MAX)),
            moved,
        });
        loop {
            ready!(waiting.timer.as_mut().poll(cx));
            if waiting.moved == moved {
                return Poll::Ready(());
            }
            waiting.moved = moved;
            waiting.timer.as_mut().reset(Instant::now() + STANDING_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::FutureExt;

    use super::*;

    /// Planted: what stands is waited for, for ever.
    #[tokio::test(start_paused = true)]
    async fn what_stands_for_minutes_has_ended_and_what_moves_now_and_then_has_not() {
        let mut standing = Standing::default();
        let begun = Instant::now();
        for moved in 0..10 {
            tokio::time::advance(STANDING_MAX).await;
            let polled = poll_fn(|cx| standing.poll(moved, cx)).now_or_never();
            assert_eq!(polled, None, "moved {moved}");
        }
        poll_fn(|cx| standing.poll(9, cx)).await;
        assert!(begun.elapsed() <= 12 * STANDING_MAX);
    }
}
