//! The buffer that a response is read into.
//!
//! Most responses are far smaller than a read may be. So what one leaves of its buffer, the next one of the same worker
//! uses: each has taken off what is its own, and sees nothing else. While nothing has come, a call has no buffer.

use std::cell::Cell;

use bytes::BytesMut;

thread_local! {
    static SPARE: Cell<BytesMut> = Cell::default();
}

pub(super) fn take() -> BytesMut {
    SPARE.take()
}

/// What is left when a response has ended.
pub(super) fn give_back(rest: BytesMut) {
    debug_assert!(rest.is_empty(), "what came and nobody asked for");
    SPARE.set(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_buffer_is_used_by_the_next_and_what_was_read_stays_as_it_was() {
        let mut first = take();
        first.reserve(64);
        let (at, room) = (first.as_ptr(), first.capacity());
        first.extend_from_slice(b"first");
        let read = first.split().freeze();
        give_back(first);
        let mut second = take();
        assert_eq!(second.capacity(), room - b"first".len());
        second.extend_from_slice(b"second");
        assert_eq!(second.as_ptr() as usize - at as usize, b"first".len());
        assert_eq!(&read[..], b"first");
        assert_eq!(take().capacity(), 0, "two at once have one each");
    }
}
