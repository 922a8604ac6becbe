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
    /// Kept frames that the newest attempt has given out.
    position: usize,
    /// Attempts that read beside it, each from where it is.
    besides: u32,
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
            position: 0,
            besides: 0,
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
            beside: None,
            trailers_sent: false,
        }
    }

    /// Another reading of the body beside the one that goes on: possible once all of it has passed and was kept, so
    /// that neither takes from the source what the other needs.
    pub fn beside(&self) -> Option<Attempt<B>> {
        let mut shared = self.lock();
        if !shared.ended || shared.outgrown {
            return None;
        }
        shared.besides += 1;
        Some(Attempt {
            shared: self.0.clone(),
            number: shared.newest,
            beside: Some(0),
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

    /// No further try will come: keep no more. What the current attempt has still to read stays until it is read.
    pub fn commit(&self) {
        let mut shared = self.lock();
        shared.outgrown = true;
        shared.forget_what_is_read();
    }
}

impl<B> Shared<B> {
    fn supersede(&mut self) -> u64 {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.newest += 1;
        self.position = 0;
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
        self.forget_what_is_read();
    }

    /// Nobody will read it again: a stream of hours would hold what its first try was made of, and its share of what all
    /// may keep.
    fn forget_what_is_read(&mut self) {
        if self.besides > 0 {
            return;
        }
        for data in self.kept.drain(..self.position) {
            let size = data.len().max(FRAME_BYTES_MIN);
            self.kept_bytes -= size;
            PROXY_BYTES.fetch_sub(size, Ordering::Relaxed);
        }
        self.position = 0;
        if self.kept.is_empty() {
            self.kept = VecDeque::new();
        }
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
    /// Kept frames that it has given out, where that is not what the newest has.
    beside: Option<u32>,
    trailers_sent: bool,
}

impl<B> Attempt<B> {
    /// What it reads from.
    pub fn replay(&self) -> Replay<B> {
        Replay(self.shared.clone())
    }

    fn position(&self, shared: &Shared<B>) -> usize {
        self.beside
            .map_or(shared.position, |position| position as usize)
    }
}

impl<B> Drop for Attempt<B> {
    fn drop(&mut self) {
        if self.beside.is_some()
            && let Ok(mut shared) = self.shared.lock()
        {
            shared.besides -= 1;
        }
    }
}

impl<B: http_body::Body<Data = Bytes, Error: Into<BodyError>> + Unpin> Attempt<B> {
    pub fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self {
            shared,
            number,
            beside,
            trailers_sent,
        } = self;
        let mut shared = shared.lock().expect("no panic while locked");
        if shared.newest != *number {
            return Poll::Ready(Some(Err(Superseded.into())));
        }
        let position = beside.map_or(shared.position, |position| position as usize);
        let mut advance = |shared: &mut Shared<B>| match beside {
            Some(position) => *position += 1,
            None => shared.position += 1,
        };
        if let Some(data) = shared.kept.get(position).cloned() {
            advance(&mut shared);
            if shared.outgrown {
                shared.forget_what_is_read();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if !*trailers_sent && let Some(trailers) = &shared.trailers {
            *trailers_sent = true;
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
                        advance(&mut shared);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    *trailers_sent = true;
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
            && self.position(&shared) >= shared.kept.len()
            && (self.trailers_sent || shared.trailers.is_none())
    }

    pub fn size_hint(&self) -> SizeHint {
        let shared = self.shared.lock().expect("no panic while locked");
        if self.position(&shared) == 0 && shared.kept.is_empty() && !shared.outgrown {
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

    /// A stream of hours held the messages with which it began, and its share of what all may keep.
    #[test]
    fn a_committed_body_keeps_only_what_its_reader_has_still_to_read() {
        let replay = replay(&[b"a", b"b"], false);
        let mut first = replay.attempt();
        assert_eq!(read(&mut first), data(b"a"));
        assert_eq!(read(&mut first), data(b"b"));
        let mut second = replay.attempt();
        assert_eq!(read(&mut second), data(b"a"));
        replay.commit();
        assert_eq!(replay.lock().kept_bytes, FRAME_BYTES_MIN);
        assert_eq!(read(&mut second), data(b"b"));
        assert_eq!(replay.lock().kept_bytes, 0);
        assert_eq!(read(&mut second), Poll::Pending);
    }

    #[test]
    fn what_is_committed_stays_whole_for_who_reads_beside() {
        let replay = replay(&[b"a", b"b"], true);
        let mut first = replay.attempt();
        while read(&mut first) != Poll::Ready(None) {}
        let mut beside = replay.beside().expect("it is whole");
        assert_eq!(read(&mut beside), data(b"a"));
        replay.commit();
        assert_eq!(read(&mut beside), data(b"b"));
        assert_eq!(read(&mut beside), Poll::Ready(None));
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
