//! The ClientHello (RFC 8446 §4.1.2), read for its ALPN and server name, and for nothing else.
//!
//! A hello may be cut into many records. It is judged when all of it is there: until then only the
//! five-byte record headers are walked. With a post-quantum key share it has about 1.5 KiB.

use std::borrow::Cow;

use super::{Detected, PREFIX_BYTES_MAX};

/// The content type of a record that carries handshake messages, and so the first byte of TLS.
pub(super) const HANDSHAKE: u8 = 0x16;

const MAJOR_VERSION: u8 = 3;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_BYTES: usize = 5;
/// RFC 8446 §5.1: a plaintext record holds at most 2^14 bytes.
const RECORD_BYTES_MAX: usize = 1 << 14;
const HELLO_HEADER_BYTES: usize = 4;

const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;
const NAME_TYPE_HOST: u8 = 0;
/// RFC 1035 §2.3.4, as text.
const SERVER_NAME_BYTES_MAX: usize = 253;

/// What a client says of itself before any key is agreed. Nothing of it is authenticated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Present when the client is a sidecar of a mesh: the first such protocol it offers.
    pub mesh: Option<MeshProtocol>,
    /// The host name it asks for, in lower case and without a trailing dot.
    pub sni: Option<String>,
}

/// What two sidecars speak inside their TLS, by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeshProtocol {
    /// Requests, multiplexed.
    Http2,
    /// One HTTP/1.1 exchange at a time, for upgrades.
    Http1,
    /// Bytes of one opaque connection.
    Tcp,
}

impl MeshProtocol {
    pub const ALL: [Self; 3] = [Self::Http2, Self::Http1, Self::Tcp];

    /// The protocol's name in ALPN.
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"weir.h2/1",
            Self::Http1 => b"weir.h1/1",
            Self::Tcp => b"weir.tcp/1",
        }
    }

    /// The protocol of an ALPN name, if it is one of the mesh's.
    pub fn from_alpn(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.alpn() == name)
    }
}

pub(super) fn detect(prefix: &[u8]) -> Detected {
    match handshake_bytes(prefix) {
        Fragments::Incomplete => Detected::NeedMore,
        Fragments::NotTls => Detected::Opaque,
        Fragments::Complete(hello) => match parse(&hello) {
            Some(hello) => Detected::Tls(hello),
            None => Detected::Opaque,
        },
    }
}

enum Fragments<'a> {
    Incomplete,
    NotTls,
    /// The body of the ClientHello, without its header.
    Complete(Cow<'a, [u8]>),
}

/// Walks the records until they hold one whole ClientHello.
fn handshake_bytes(prefix: &[u8]) -> Fragments<'_> {
    let mut records = prefix;
    let mut seen = Message::default();
    while !records.is_empty() {
        let Some(record) = Record::read(records) else {
            return Fragments::NotTls;
        };
        if !seen.take(record.body) {
            return Fragments::NotTls;
        }
        if seen.is_complete() {
            return Fragments::Complete(body(prefix, &seen));
        }
        records = record.rest;
    }
    Fragments::Incomplete
}

/// A record as far as its bytes are there.
struct Record<'a> {
    body: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Record<'a> {
    /// None when the bytes cannot be the beginning of a handshake record.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let expected = [HANDSHAKE, MAJOR_VERSION];
        if bytes
            .iter()
            .zip(expected)
            .any(|(byte, expected)| *byte != expected)
        {
            return None;
        }
        let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER_BYTES) else {
            return Some(Self {
                body: &[],
                rest: &[],
            });
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        // RFC 8446 §5.1 forbids empty fragments of handshake messages.
        if length == 0 || length > RECORD_BYTES_MAX {
            return None;
        }
        let (body, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        Some(Self { body, rest })
    }
}

/// How much of the handshake message has been seen, and how long it says it is.
#[derive(Default)]
struct Message {
    header: [u8; HELLO_HEADER_BYTES],
    bytes: usize,
}

impl Message {
    /// Accounts for one fragment. False when this is no ClientHello, or one too long to be judged.
    fn take(&mut self, fragment: &[u8]) -> bool {
        let missing = HELLO_HEADER_BYTES
            .saturating_sub(self.bytes)
            .min(fragment.len());
        if missing > 0 {
            self.header[self.bytes..self.bytes + missing].copy_from_slice(&fragment[..missing]);
        }
        self.bytes += fragment.len();
        let is_hello = self.bytes == 0 || self.header[0] == CLIENT_HELLO;
        is_hello
            && self
                .length()
                .is_none_or(|length| length <= PREFIX_BYTES_MAX)
    }

    /// Of the whole message with its header, once that is known.
    fn length(&self) -> Option<usize> {
        let [_, high, middle, low] = self.header;
        let body = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.bytes >= HELLO_HEADER_BYTES).then_some(HELLO_HEADER_BYTES + body)
    }

    fn is_complete(&self) -> bool {
        self.length().is_some_and(|length| self.bytes >= length)
    }
}

/// The hello's body: borrowed from its one record, or put together from several.
fn body<'a>(prefix: &'a [u8], seen: &Message) -> Cow<'a, [u8]> {
    let length = seen.length().expect("a complete message has its header");
    let first = Record::read(prefix).expect("was read before");
    if let Some(hello) = first.body.get(..length) {
        return Cow::Borrowed(&hello[HELLO_HEADER_BYTES..]);
    }
    let mut message = Vec::with_capacity(seen.bytes);
    let mut records = prefix;
    while message.len() < length {
        let record = Record::read(records).expect("was read before");
        message.extend_from_slice(record.body);
        records = record.rest;
    }
    message.truncate(length);
    Cow::Owned(message.split_off(HELLO_HEADER_BYTES))
}

/// None when malformed.
fn parse(hello: &[u8]) -> Option<ClientHello> {
    let mut hello = Reader(hello);
    hello.skip(2 + 32)?; // legacy version, random
    hello.vector_u8()?.at_most(32)?; // legacy session id
    hello.vector_u16()?.not_empty()?; // cipher suites
    hello.vector_u8()?.not_empty()?; // legacy compression methods
    if hello.0.is_empty() {
        return Some(ClientHello::default()); // no extensions: before TLS 1.2
    }
    let mut extensions = hello.vector_u16()?;
    hello.end()?;

    let (mut alpn, mut server_name) = (None, None);
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let extension = extensions.vector_u16()?;
        match kind {
            EXTENSION_ALPN => once(&mut alpn, extension)?,
            EXTENSION_SERVER_NAME => once(&mut server_name, extension)?,
            _ => {}
        }
    }
    Some(ClientHello {
        mesh: alpn.map_or(Some(None), mesh_protocol)?,
        sni: server_name.map_or(Some(None), host_name)?,
    })
}

/// An extension that comes twice could mean one thing to us and another to the server.
fn once<'a>(slot: &mut Option<Reader<'a>>, extension: Reader<'a>) -> Option<()> {
    slot.replace(extension).is_none().then_some(())
}

/// RFC 7301 §3.1. The outer None says malformed.
fn mesh_protocol(mut extension: Reader<'_>) -> Option<Option<MeshProtocol>> {
    let mut names = extension.vector_u16()?.not_empty()?;
    extension.end()?;
    let mut offered = None;
    while !names.0.is_empty() {
        let name = names.vector_u8()?.not_empty()?;
        offered = offered.or_else(|| MeshProtocol::from_alpn(name.0));
    }
    Some(offered)
}

/// RFC 6066 §3. The outer None says malformed, the inner one that there is no usable name.
fn host_name(mut extension: Reader<'_>) -> Option<Option<String>> {
    let mut names = extension.vector_u16()?.not_empty()?;
    extension.end()?;
    let mut host = None;
    while !names.0.is_empty() {
        if names.u8()? != NAME_TYPE_HOST {
            break; // how long a name of another type is, nobody can say
        }
        once(&mut host, names.vector_u16()?.not_empty()?)?;
    }
    Some(host.and_then(|name| canonical(name.0)))
}

fn canonical(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_dns = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.is_empty() || name.len() > SERVER_NAME_BYTES_MAX || !name.iter().all(is_dns) {
        return None;
    }
    let text = std::str::from_utf8(name).expect("only ASCII is left");
    Some(text.to_ascii_lowercase())
}

/// What is left to read. Every method is None when the bytes are not there.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector_u8(&mut self) -> Option<Self> {
        let length = self.u8()?;
        self.take(length.into()).map(Self)
    }

    fn vector_u16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }

    fn at_most(self, length: usize) -> Option<Self> {
        (self.0.len() <= length).then_some(self)
    }

    fn not_empty(self) -> Option<Self> {
        (!self.0.is_empty()).then_some(self)
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}
