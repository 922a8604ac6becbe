//! Both ends of HTTP/2, as cheap as they can be and correct where it matters: flow control both ways, SETTINGS, PING.
//! Fields that the other end sends are not looked at: an answer is right when its body has the right length, and what a
//! proxy answers by itself never has.

use tokio::time::Instant;

use crate::connection::{Done, Fault};
use crate::hpack::Encoder;
use crate::shape::{GRPC_PREFIX, Shape};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const DEFAULT_WINDOW: i64 = 65_535;
const DEFAULT_FRAME: usize = 16 * 1024;
/// What we allow: nothing here should wait for us.
const STREAM_WINDOW: u32 = 16 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 1 << 30;
const CONNECTION_TOP_UP: u32 = 1 << 24;
/// What the few fields here need.
const TABLE_MIN: u32 = 1024;
const ID_MAX: u32 = 0x7fff_fff0;

const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/catalog/items/42"),
    (":authority", "catalog"),
    ("user-agent", "weir-bench"),
    ("accept", "*/*"),
];
const CALL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/boutique.v1.Catalog/GetProduct"),
    (":authority", "catalog"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    ("user-agent", "weir-bench"),
    ("grpc-accept-encoding", "identity,gzip"),
];
const ANSWER: &[(&str, &str)] = &[
    (":status", "200"),
    ("content-type", "text/plain"),
    ("content-length", "100"),
    ("server", "bench"),
];
const GRPC_ANSWER: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];
const TRAILERS: &[(&str, &str)] = &[("grpc-status", "0")];

pub struct Http2 {
    server: bool,
    shape: Shape,
    inbox: Vec<u8>,
    /// Of the client's preface, still to come.
    preface: usize,
    encoder: Encoder,
    next_id: u32,
    send_window: i64,
    initial_window: i64,
    frame_max: usize,
    /// Received since the connection's window was last opened again.
    received: u32,
    streams: Vec<Stream>,
    /// One gRPC message of this shape.
    message: Vec<u8>,
}

struct Stream {
    id: u32,
    asked: Instant,
    received: usize,
    sent: usize,
    to_send: usize,
    window: i64,
    /// Whether it is our turn: a server answers when the request has ended.
    due: bool,
}

impl Http2 {
    pub fn client(shape: Shape, outbox: &mut Vec<u8>) -> Self {
        outbox.extend_from_slice(PREFACE);
        Self::new(false, shape, outbox)
    }

    pub fn server(shape: Shape, outbox: &mut Vec<u8>) -> Self {
        Self::new(true, shape, outbox)
    }

    fn new(server: bool, shape: Shape, outbox: &mut Vec<u8>) -> Self {
        let window = [&[0, 4][..], &STREAM_WINDOW.to_be_bytes()].concat();
        frame(outbox, SETTINGS, 0, 0, &window);
        let more = CONNECTION_WINDOW - u32::try_from(DEFAULT_WINDOW).expect("a constant");
        frame(outbox, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        Self {
            server,
            shape,
            inbox: Vec::new(),
            preface: if server { PREFACE.len() } else { 0 },
            encoder: Encoder::default(),
            next_id: 1,
            send_window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            frame_max: DEFAULT_FRAME,
            received: 0,
            streams: Vec::new(),
            message: message(shape),
        }
    }

    /// A server's connections outlive what is measured on them.
    pub fn become_shape(&mut self, shape: Shape) {
        if self.shape != shape {
            self.shape = shape;
            self.message = message(shape);
        }
    }

    pub fn outstanding(&self) -> usize {
        self.streams.len()
    }

    pub fn ask(&mut self, intended: Instant, outbox: &mut Vec<u8>) {
        let id = self.next_id;
        self.next_id += 2;
        let to_send = self.shape.asked();
        let fields = if self.shape.is_grpc() { CALL } else { GET };
        self.headers(id, fields, to_send == 0, outbox);
        self.streams.push(Stream {
            id,
            asked: intended,
            received: 0,
            sent: 0,
            to_send,
            window: self.initial_window,
            due: true,
        });
        self.pump(self.streams.len() - 1, outbox);
    }

    pub fn take(
        &mut self,
        bytes: &[u8],
        outbox: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<(), Fault> {
        let mut inbox = std::mem::take(&mut self.inbox);
        inbox.extend_from_slice(bytes);
        let mut at = self.preface.min(inbox.len());
        self.preface -= at;
        while let Some(head) = inbox.get(at..at + FRAME_HEAD) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            let (kind, flags) = (head[3], head[4]);
            let Some(payload) = inbox.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else {
                break;
            };
            self.frame(kind, flags, id, payload, outbox, done)?;
            at += FRAME_HEAD + length;
        }
        inbox.drain(..at);
        self.inbox = inbox;
        if self.next_id > ID_MAX {
            return Err(Fault("a connection has no stream ids left"));
        }
        Ok(())
    }

    fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        id: u32,
        payload: &[u8],
        outbox: &mut Vec<u8>,
        done: &mut Vec<Done>,
    ) -> Result<(), Fault> {
        let ends = flags & END_STREAM != 0;
        match kind {
            DATA => {
                let padding = if flags & PADDED == 0 {
                    0
                } else {
                    usize::from(payload[0]) + 1
                };
                self.open_window(payload.len(), outbox);
                if let Some(place) = self.place(id) {
                    self.streams[place].received += payload.len() - padding;
                    if ends {
                        self.ended(place, outbox, done);
                    }
                }
            }
            HEADERS if self.server => {
                self.begun(id);
                if ends {
                    self.ended(self.streams.len() - 1, outbox, done);
                }
            }
            HEADERS if ends => {
                if let Some(place) = self.place(id) {
                    self.ended(place, outbox, done);
                }
            }
            RST_STREAM => {
                if let Some(place) = self.place(id) {
                    let stream = self.streams.swap_remove(place);
                    done.extend((!self.server).then_some(Done {
                        intended: stream.asked,
                        fine: false,
                    }));
                }
            }
            SETTINGS if flags & ACK == 0 => self.settings(payload, outbox)?,
            PING if flags & ACK == 0 => frame(outbox, PING, ACK, 0, payload),
            WINDOW_UPDATE => self.window_update(id, payload, outbox),
            GOAWAY if !self.server => return Err(Fault("the proxy sent GOAWAY")),
            _ => {}
        }
        Ok(())
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.iter().position(|stream| stream.id == id)
    }

    fn begun(&mut self, id: u32) {
        self.streams.push(Stream {
            id,
            asked: Instant::now(),
            received: 0,
            sent: 0,
            to_send: self.shape.answered(),
            window: self.initial_window,
            due: false,
        });
    }

    /// The other end has said all: an answer is here, or an answer is due.
    fn ended(&mut self, place: usize, outbox: &mut Vec<u8>, done: &mut Vec<Done>) {
        if self.server {
            let id = self.streams[place].id;
            let fields = if self.shape.is_grpc() {
                GRPC_ANSWER
            } else {
                ANSWER
            };
            self.headers(id, fields, false, outbox);
            self.streams[place].due = true;
            self.pump(place, outbox);
            return;
        }
        let stream = self.streams.swap_remove(place);
        done.push(Done {
            intended: stream.asked,
            fine: stream.received == self.shape.answered(),
        });
    }

    /// Sends as much of a stream's body as the other end has room for.
    fn pump(&mut self, place: usize, outbox: &mut Vec<u8>) {
        let step = self.shape.message();
        let trailers = self.server && self.shape.is_grpc();
        let stream = &mut self.streams[place];
        while stream.sent < stream.to_send && stream.window > 0 && self.send_window > 0 {
            let offset = stream.sent % step;
            let room = usize::try_from(stream.window.min(self.send_window)).expect("positive");
            let length = (step - offset)
                .min(stream.to_send - stream.sent)
                .min(self.frame_max)
                .min(room);
            let last = stream.sent + length == stream.to_send && !trailers;
            let flags = if last { END_STREAM } else { 0 };
            frame(
                outbox,
                DATA,
                flags,
                stream.id,
                &self.message[offset..offset + length],
            );
            let spent = i64::try_from(length).expect("a frame is small");
            (stream.sent, stream.window) = (stream.sent + length, stream.window - spent);
            self.send_window -= spent;
        }
        if self.server && stream.sent == stream.to_send {
            let id = stream.id;
            self.streams.swap_remove(place);
            if trailers {
                self.headers(id, TRAILERS, true, outbox);
            }
        }
    }

    fn pump_all(&mut self, outbox: &mut Vec<u8>) {
        // From the end: a stream that is done is replaced by the last, which has had its turn.
        for place in (0..self.streams.len()).rev() {
            if place < self.streams.len() && self.streams[place].due {
                self.pump(place, outbox);
            }
        }
    }

    fn headers(
        &mut self,
        id: u32,
        fields: &[(&'static str, &'static str)],
        ends: bool,
        outbox: &mut Vec<u8>,
    ) {
        let at = outbox.len();
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        frame(outbox, HEADERS, flags, id, &[]);
        self.encoder.encode(fields, outbox);
        let length = u32::try_from(outbox.len() - at - FRAME_HEAD).expect("a small block");
        outbox[at..at + 3].copy_from_slice(&length.to_be_bytes()[1..]);
    }

    fn settings(&mut self, payload: &[u8], outbox: &mut Vec<u8>) -> Result<(), Fault> {
        for setting in payload.chunks_exact(6) {
            let value = u32::from_be_bytes([setting[2], setting[3], setting[4], setting[5]]);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                1 if value == 0 => self.encoder.give_up_table(),
                1 if value < TABLE_MIN => {
                    return Err(Fault("an HPACK table too small for this driver"));
                }
                4 => {
                    let change = i64::from(value) - self.initial_window;
                    self.initial_window = i64::from(value);
                    for stream in &mut self.streams {
                        stream.window += change;
                    }
                }
                5 => self.frame_max = usize::try_from(value).unwrap_or(DEFAULT_FRAME),
                _ => {}
            }
        }
        frame(outbox, SETTINGS, ACK, 0, &[]);
        self.pump_all(outbox);
        Ok(())
    }

    fn window_update(&mut self, id: u32, payload: &[u8], outbox: &mut Vec<u8>) {
        let Ok(more) = <[u8; 4]>::try_from(payload) else {
            return;
        };
        let more = i64::from(u32::from_be_bytes(more) & 0x7fff_ffff);
        if id == 0 {
            self.send_window += more;
            self.pump_all(outbox);
        } else if let Some(place) = self.place(id) {
            self.streams[place].window += more;
            if self.streams[place].due {
                self.pump(place, outbox);
            }
        }
    }

    fn open_window(&mut self, bytes: usize, outbox: &mut Vec<u8>) {
        self.received += u32::try_from(bytes).expect("a frame is small");
        if self.received >= CONNECTION_TOP_UP {
            frame(outbox, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
    }
}

fn message(shape: Shape) -> Vec<u8> {
    let mut message = vec![0; shape.message()];
    let length = u32::try_from(shape.message() - GRPC_PREFIX).expect("64 KiB");
    message[1..GRPC_PREFIX].copy_from_slice(&length.to_be_bytes());
    message
}

fn frame(outbox: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("a frame is small");
    outbox.extend_from_slice(&length.to_be_bytes()[1..]);
    outbox.extend_from_slice(&[kind, flags]);
    outbox.extend_from_slice(&id.to_be_bytes());
    outbox.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Carries bytes both ways, in pieces, until nothing moves.
    fn converse(shape: Shape, calls: usize, piece: usize) -> Vec<Done> {
        let (mut to_server, mut to_client, mut done) = (Vec::new(), Vec::new(), Vec::new());
        let mut client = Http2::client(shape, &mut to_server);
        let mut server = Http2::server(shape, &mut to_client);
        for _ in 0..calls {
            client.ask(Instant::now(), &mut to_server);
        }
        let mut none = Vec::new();
        while !to_server.is_empty() || !to_client.is_empty() {
            for bytes in std::mem::take(&mut to_server).chunks(piece) {
                server.take(bytes, &mut to_client, &mut none).unwrap();
            }
            for bytes in std::mem::take(&mut to_client).chunks(piece) {
                client.take(bytes, &mut to_server, &mut done).unwrap();
            }
        }
        assert!(none.is_empty(), "a server has nothing to report");
        assert_eq!((client.outstanding(), server.outstanding()), (0, 0));
        done
    }

    #[test]
    fn every_shape_is_answered_in_full_however_the_bytes_are_cut() {
        for shape in [
            Shape::Http2,
            Shape::GrpcSmall,
            Shape::GrpcLarge,
            Shape::GrpcStream,
        ] {
            for piece in [7, 1000, 1 << 20] {
                let done = converse(shape, 5, piece);
                assert_eq!(done.len(), 5, "{shape} in pieces of {piece}");
                assert!(
                    done.iter().all(|done| done.fine),
                    "{shape} in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn an_answer_that_is_only_trailers_is_a_failure() {
        let (mut outbox, mut done) = (Vec::new(), Vec::new());
        let mut client = Http2::client(Shape::GrpcSmall, &mut outbox);
        client.ask(Instant::now(), &mut outbox);
        let mut answer = Vec::new();
        frame(&mut answer, HEADERS, END_HEADERS | END_STREAM, 1, &[0x88]);
        client.take(&answer, &mut outbox, &mut done).unwrap();
        assert_eq!(done.len(), 1);
        assert!(!done[0].fine);
    }

    #[test]
    fn no_more_is_sent_than_the_other_end_has_room_for() {
        let mut outbox = Vec::new();
        let mut client = Http2::client(Shape::GrpcLarge, &mut outbox);
        outbox.clear();
        client.ask(Instant::now(), &mut outbox);
        assert_eq!(client.streams[0].sent, 65_535);
        assert_eq!(client.send_window, 0);
    }
}
