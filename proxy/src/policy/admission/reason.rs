//! Why somebody is turned away, for metrics and for people.

/// Why somebody is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Others matter more, or have had less.
    Priority,
    QueueFull,
    /// It waited for as long as it may.
    QueueTimeout,
    /// Its caller would be gone before the app could answer.
    Deadline,
    /// There are too many streams.
    Streams,
}

impl Reason {
    pub const COUNT: usize = 5;
    pub const ALL: [Self; Self::COUNT] = [
        Self::Priority,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Deadline,
        Self::Streams,
    ];

    /// In metrics and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Deadline => "deadline",
            Self::Streams => "too-many-streams",
        }
    }

    /// For people; plain ASCII, so that it fits a header as it is.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Priority => "the service has too much to do, and other requests come first",
            Self::QueueFull => "the service has too much to do, and its queue is full",
            Self::QueueTimeout => "the service has too much to do: waited in its queue in vain",
            Self::Deadline => "the service has too much to do to answer by the deadline",
            Self::Streams => "the service has too many streams open",
        }
    }
}
