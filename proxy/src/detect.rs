//! Which protocol a connection speaks, judged by its first bytes. Pure: bytes in, verdict out.
//!
//! ```text
//!            ┌─ 0x16 0x03 ──────────▶ TLS: the whole ClientHello ──▶ Tls(alpn, sni)
//!  prefix ───┼─ "PRI * HTTP/2.0…" ──────────────────────────────▶ Http2
//!            ├─ METHOD sp target sp "HTTP/1." ──────────────────▶ Http1
//!            └─ anything else, as soon as it can be nothing above ▶ Opaque
//! ```
//!
//! Two promises make it safe to call after every read: a verdict never changes when more bytes
//! come, and it is there at the latest with [`PREFIX_BYTES_MAX`] bytes. Hostile bytes cost at most
//! one copy of what was really received; a length that is only declared allocates nothing.

mod http;
mod tls;

pub use tls::{ClientHello, MeshProtocol};

/// A buffer of this size always suffices for a verdict.
pub const PREFIX_BYTES_MAX: usize = 16 * 1024;

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detected {
    /// Too early to say. Never returned for [`PREFIX_BYTES_MAX`] bytes or more.
    NeedMore,
    /// HTTP/1.0 or 1.1 in clear.
    Http1,
    /// HTTP/2 in clear, with prior knowledge.
    Http2,
    /// TLS: the sidecar of a peer, or the app's own.
    Tls(ClientHello),
    /// Bytes to be forwarded without looking into them.
    Opaque,
}

/// The verdict on a connection that began with `prefix`.
pub fn detect(prefix: &[u8]) -> Detected {
    let looked_at = &prefix[..prefix.len().min(PREFIX_BYTES_MAX)];
    let verdict = match looked_at.first() {
        None => Detected::NeedMore,
        Some(&tls::HANDSHAKE) => tls::detect(looked_at),
        Some(_) => http::detect(looked_at),
    };
    match verdict {
        Detected::NeedMore if looked_at.len() == PREFIX_BYTES_MAX => Detected::Opaque,
        verdict => verdict,
    }
}

#[cfg(test)]
pub(crate) mod tests;
