//! Keeping a request body while it passes, so that another try can send it again.
//!
//! Bounded twice: 64 KiB a request and 16 MiB for the whole proxy (resilience.md section 8). A body that outgrows
//! either keeps streaming, it only can no longer be sent a second time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use crate::body::{Body, BodyError};

const REQUEST_BYTES_MAX: usize = 64 * 1024;
const PROXY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What keeping a frame takes, whatever is in it.
const FRAME_BYTES_MIN: usize = 64;
const COPIED_BELOW: usize = 4 * 1024;

static PROXY_BYTES: AtomicUsize = AtomicUsize::new(0);

/// What an attempt reads that is not the newest any more. hyper resets its stream.
#[derive(Debug, thiserror::Error)]
#[error("this try was given up, and its body is sent elsewhere")]
struct Superseded;

/// A request body that can be read several times while it is small.
pub struct Replay<B = Body>(Arc<Mutex<Shared<B>>>);

/// The same body.
impl<B> Clone for Replay<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<B> {
    source: B,
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// More passed than may be kept: what was kept is gone.
    outgrown: bool,
    /// The only attempt that may read. An earlier one would take from the source what this one needs.
    newest: u64,
    /// Whoever waits for the source.
    reader: Option<Waker>,
}

impl<B> Replay<B> {
    pub fn new(source: B) -> Self {
        Self(Arc::new(Mutex::new(Shared {
            source,
            kept: VecDeque::new(),
            kept_bytes: 0,
            trailers: None,
            ended: false,
            outgrown: false,
            newest: 0,
            reader: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Shared<B>> {
        self.0.lock().expect("no panic while locked")
    }

    /// The body from its start. Whoever read it before is stopped.
    pub fn attempt(&self) -> Attempt<B> {
        let number = self.lock().supersede();
        Attempt {
            shared: self.0.clone(),
            number,
            position: 0,
            trailers_sent: false,
        }
    }

    /// Another reading of the body beside the one that goes on: possible once all of it has passed and was kept, so
    /// that neither takes from the source what the other needs.
    pub fn beside(&self) -> Option<Attempt<B>> {
        let shared = self.lock();
        (shared.ended && !shared.outgrown).then(|| Attempt {
            shared: self.0.clone(),
            number: shared.newest,
            position: 0,
            trailers_sent: false,
        })
    }

    /// The attempt that reads now is given up. While nobody reads, the body cannot outgrow what may be kept.
    pub fn give_up(&self) {
        self.lock().supersede();
    }

    /// Whether a further attempt would see the whole body.
    pub fn is_possible(&self) -> bool {
        !self.lock().outgrown
    }

    /// No further try will come: keep no more. What the current attempt has still to read stays.
    pub fn commit(&self) {
        self.lock().outgrown = true;
    }
}

impl<B> Shared<B> {
    fn supersede(&mut self) -> u64 {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.newest += 1;
        self.newest
    }

    fn keep(&mut self, data: &Bytes) {
        if self.outgrown {
            return;
        }
        let size = data.len().max(FRAME_BYTES_MIN);
        let fits_request = self.kept_bytes + size <= REQUEST_BYTES_MAX;
        if !fits_request || PROXY_BYTES.fetch_add(size, Ordering::Relaxed) + size > PROXY_BYTES_MAX
        {
            if fits_request {
                PROXY_BYTES.fetch_sub(size, Ordering::Relaxed);
            }
            self.outgrow();
            return;
        }
        self.kept_bytes += size;
        // Few bodies have a second frame. A small one, kept as it is, would keep all that was read with it.
        self.kept
            .push_back(match self.kept.is_empty() || data.len() >= COPIED_BELOW {
                true => data.clone(),
                false => Bytes::copy_from_slice(data),
            });
    }

    fn outgrow(&mut self) {
        self.outgrown = true;
        PROXY_BYTES.fetch_sub(self.kept_bytes, Ordering::Relaxed);
        self.kept_bytes = 0;
        self.kept = VecDeque::new();
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        PROXY_BYTES.fetch_sub(self.kept_bytes, Ordering::Relaxed);
    }
}

/// One try's reading of the body: first what was kept, then what still comes.
pub struct Attempt<B = Body> {
    shared: Arc<Mutex<Shared<B>>>,
    number: u64,
    /// Kept frames already given out by this attempt.
    position: usize,
    trailers_sent: bool,
}

impl<B> Attempt<B> {
    /// What it reads from.
    pub fn replay(&self) -> Replay<B> {
        Replay(self.shared.clone())
    }
}

impl<B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Attempt<B> {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.lock().expect("no panic while locked");
        if shared.newest != self.number {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        if let Some(data) = shared.kept.get(self.position) {
            self.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if !self.trailers_sent
            && let Some(trailers) = &shared.trailers
        {
            self.trailers_sent = true;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if shared.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = Pin::new(&mut shared.source).poll_frame(cx) else {
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        match frame {
            None => {
                shared.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    shared.keep(data);
                    if !shared.outgrown {
                        self.position += 1;
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    self.trailers_sent = true;
                }
                if shared.source.is_end_stream() {
                    shared.ended = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    pub fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock().expect("no panic while locked");
        shared.ended
            && self.position >= shared.kept.len()
            && (self.trailers_sent || shared.trailers.is_none())
    }

    pub fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock().expect("no panic while locked");
        if self.position == 0 && shared.kept.is_empty() && !shared.outgrown {
            return shared.source.size_hint();
        }
        // Part of it has been read: what is left of the source is not what is left of the body.
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures_util::task::noop_waker;

    use super::*;

    /// Frames that are there at once, and then nothing more, or the end.
    struct Frames {
        frames: VecDeque<&'static [u8]>,
        ends: bool,
    }

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.frames.pop_front() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(frame))))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn replay(frames: &[&'static [u8]], ends: bool) -> Replay<Frames> {
        let frames = frames.iter().copied().collect();
        Replay::new(Frames { frames, ends })
    }

    /// One frame's data; `None` at the end, an error when it may not be read.
    fn read(attempt: &mut Attempt<Frames>) -> Poll<Option<Result<Bytes, String>>> {
        let waker = noop_waker();
        attempt
            .poll_frame(&mut Context::from_waker(&waker))
            .map(|frame| {
                Some(
                    frame?
                        .map_err(|error| error.to_string())
                        .map(|frame| frame.into_data().expect("these tests have no trailers")),
                )
            })
    }

    fn data(bytes: &'static [u8]) -> Poll<Option<Result<Bytes, String>>> {
        Poll::Ready(Some(Ok(Bytes::from_static(bytes))))
    }

    #[test]
    fn a_second_attempt_sees_the_body_from_its_start() {
        let replay = replay(&[b"a", b"b"], true);
        let mut first = replay.attempt();
        assert_eq!(read(&mut first), data(b"a"));
        let mut second = replay.attempt();
        for expected in [data(b"a"), data(b"b"), Poll::Ready(None)] {
            assert_eq!(read(&mut second), expected);
        }
    }

    #[test]
    fn an_attempt_that_was_given_up_takes_nothing_from_the_one_after_it() {
        const HALF: &[u8] = &[7; REQUEST_BYTES_MAX / 2 + 1];
        let replay = replay(&[HALF, HALF, b"end"], true);
        let mut first = replay.attempt();
        assert_eq!(read(&mut first), data(HALF));
        replay.give_up();
        // Read on, it would outgrow what may be kept, and the next attempt would begin in the middle.
        assert!(matches!(read(&mut first), Poll::Ready(Some(Err(_)))));
        assert!(replay.is_possible());
        let mut second = replay.attempt();
        for expected in [data(HALF), data(HALF), data(b"end"), Poll::Ready(None)] {
            assert_eq!(read(&mut second), expected);
        }
        assert!(!replay.is_possible(), "now it has outgrown it");
    }

    #[test]
    fn what_outgrows_its_bound_is_kept_no_longer_and_still_passes_whole() {
        const FITS: &[u8] = &[7; REQUEST_BYTES_MAX];
        let replay = replay(&[FITS, b"+", b"end"], true);
        let mut only = replay.attempt();
        assert_eq!(read(&mut only), data(FITS));
        assert_eq!(replay.lock().kept_bytes, REQUEST_BYTES_MAX);
        assert!(replay.is_possible());
        for expected in [data(b"+"), data(b"end"), Poll::Ready(None)] {
            assert_eq!(read(&mut only), expected);
        }
        assert!(!replay.is_possible());
        assert_eq!(replay.lock().kept_bytes, 0);
        assert!(replay.beside().is_none(), "its beginning is gone");
    }

    /// A body in frames of one byte took thirty times what was counted for it, and kept all that was read with each.
    #[test]
    fn small_frames_cost_what_keeping_them_takes_and_keep_nothing_else() {
        let frames: Vec<&'static [u8]> = vec![b"."; REQUEST_BYTES_MAX / FRAME_BYTES_MIN + 1];
        let replay = replay(&frames, true);
        let mut only = replay.attempt();
        assert_eq!(read(&mut only), data(b"."));
        let given = match read(&mut only) {
            Poll::Ready(Some(Ok(data))) => data,
            other => panic!("{other:?}"),
        };
        assert_ne!(replay.lock().kept[1].as_ptr(), given.as_ptr(), "a copy");
        for _ in 2..frames.len() - 1 {
            assert_eq!(read(&mut only), data(b"."));
        }
        assert_eq!(replay.lock().kept_bytes, REQUEST_BYTES_MAX);
        assert!(replay.is_possible());
        assert_eq!(read(&mut only), data(b"."));
        assert!(!replay.is_possible());
    }

    #[test]
    fn two_may_read_beside_each_other_once_the_whole_body_has_passed() {
        let replay = replay(&[b"a", b"b"], true);
        let mut first = replay.attempt();
        assert_eq!(read(&mut first), data(b"a"));
        assert!(replay.beside().is_none(), "the rest is still in the source");
        assert_eq!(read(&mut first), data(b"b"));
        assert_eq!(read(&mut first), Poll::Ready(None));
        let mut beside = first.replay().beside().expect("it is whole");
        assert_eq!(read(&mut beside), data(b"a"));
        let mut third = replay.attempt();
        assert!(matches!(read(&mut beside), Poll::Ready(Some(Err(_)))));
        for expected in [data(b"a"), data(b"b"), Poll::Ready(None)] {
            assert_eq!(read(&mut third), expected);
        }
    }

    #[test]
    fn an_attempt_that_waits_is_told_that_it_was_given_up() {
        let replay = replay(&[], false);
        let mut first = replay.attempt();
        let (waker, woken) = waker_that_tells();
        let polled = first.poll_frame(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        replay.give_up();
        assert!(
            woken.load(Ordering::Relaxed),
            "or its stream would stay open"
        );
    }

    fn waker_that_tells() -> (Waker, Arc<std::sync::atomic::AtomicBool>) {
        struct Flag(Arc<std::sync::atomic::AtomicBool>);
        impl std::task::Wake for Flag {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let woken = Arc::new(std::sync::atomic::AtomicBool::new(false));
        (Arc::new(Flag(woken.clone())).into(), woken)
    }
}
