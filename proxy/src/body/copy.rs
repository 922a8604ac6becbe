//! Copying an answer's body while it passes, for whoever wants all of it afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// What copies may take up together while their bodies pass. A copy that finds no room is given up; the body passes.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    bytes_max: usize,
}

impl Room {
    pub const fn new(bytes_max: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            bytes_max,
        }
    }

    fn take(&self, bytes: usize) -> bool {
        let taken = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.bytes_max;
        if !taken {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        taken
    }
}

/// Bytes of its own: what passes are slices of buffers that may be much larger, and would stay with them.
pub struct Copy {
    bytes: Vec<u8>,
    bytes_max: usize,
    room: Arc<Room>,
    /// `None` once it was told.
    whole: Option<Box<dyn FnOnce(Bytes) + Send>>,
}

impl Copy {
    /// `whole` gets the body if all of it has passed and it was no longer than `bytes_max`.
    pub fn new(
        bytes_max: usize,
        room: Arc<Room>,
        whole: impl FnOnce(Bytes) + Send + 'static,
    ) -> Self {
        Self {
            bytes: Vec::new(),
            bytes_max,
            room,
            whole: Some(Box::new(whole)),
        }
    }

    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Whether it goes on.
    pub(super) fn see(&mut self, data: &[u8]) -> bool {
        let fits = self.bytes.len() + data.len() <= self.bytes_max && self.room.take(data.len());
        if fits {
            self.bytes.extend_from_slice(data);
        }
        fits
    }

    pub(super) fn end(mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.room.used.fetch_sub(bytes.len(), Ordering::Relaxed);
        if let Some(whole) = self.whole.take() {
            // Exact: whoever keeps it counts it by its length.
            whole(bytes.into_boxed_slice().into());
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.room
            .used
            .fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}
