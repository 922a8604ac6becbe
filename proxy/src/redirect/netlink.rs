//! As much of netlink as nf_tables wants: messages of nested attributes, in batches that hold whole or not at all.
//!
//! ```text
//!   batch begin │ message: header, family, attributes │ message … │ batch end      one send, one transaction
//!                   ◀── an answer for each message: 0, or why all of it was refused
//! ```
//!
//! The kernel's own headers (`linux/netlink.h`, `linux/netfilter/nfnetlink.h`) are the reference. A socket belongs to
//! the network namespace of the thread that makes it.

use std::io::{self, Read, Write};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

const HEADER_BYTES: usize = 16;
/// Family, version and resource, which stand before the attributes.
const FAMILY_BYTES: usize = 4;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
/// Attributes carry their length in 16 bits, and the kernel's buffer has this much without being asked for more.
const BATCH_BYTES_MAX: usize = 128 * 1024;
/// The kernel answers before it returns from the send; this is for a kernel that does not answer at all.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(5);
const NESTED: u16 = 1 << 15;
const KIND_MASK: u16 = (1 << 14) - 1;

/// What one message says, as the kernel reads it: kind, length and value of each, on boundaries of four bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length =
            u16::try_from(value.len() + 4).expect("an attribute is cut to size by its author");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// As nf_tables has numbers: most significant byte first.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Kind and value of each attribute; what is cut short ends the list.
pub(super) fn read(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]) & KIND_MASK;
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((kind, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// Messages that hold together or not at all. Each has words for whoever reads that it was refused.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    whats: Vec<String>,
}

/// What the kernel did not like, and why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) what: String,
    pub(super) error: io::Error,
}

impl Batch {
    pub(super) fn push(
        &mut self,
        what: &str,
        kind: libc::c_int,
        flags: libc::c_int,
        said: &Attributes,
    ) {
        let kind = (SUBSYSTEM << 8) | kind as u16;
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        // A batch's first message has number 0, so what is in it begins with 1.
        let number = self.whats.len() as u32 + 1;
        let inet = [libc::NFPROTO_INET as u8, 0, 0, 0];
        self.bytes
            .extend(message(kind, flags, number, inet, &said.0));
        self.whats.push(what.to_owned());
    }

    /// Sends it all, and waits for what the kernel says of it.
    pub(super) fn send(self) -> Result<(), Refused> {
        let whole = |error| Refused {
            what: "the transaction".to_owned(),
            error,
        };
        let edge = |kind: libc::c_int, number| {
            let resource = [0, 0, 0, SUBSYSTEM as u8];
            message(
                kind as u16,
                libc::NLM_F_REQUEST as u16,
                number,
                resource,
                &[],
            )
        };
        let last = self.whats.len() as u32 + 1;
        let bytes = [
            edge(libc::NFNL_MSG_BATCH_BEGIN, 0),
            self.bytes,
            edge(libc::NFNL_MSG_BATCH_END, last),
        ]
        .concat();
        if bytes.len() > BATCH_BYTES_MAX {
            let text = format!(
                "{} bytes of rules are more than {BATCH_BYTES_MAX}: fewer ports and networks",
                bytes.len()
            );
            return Err(whole(io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        let mut socket = socket().map_err(whole)?;
        socket.write_all(&bytes).map_err(whole)?;
        let mut fine = 0;
        while fine < self.whats.len() {
            for answer in receive(&mut socket).map_err(whole)? {
                let Answer::Verdict { number, error } = answer else {
                    continue;
                };
                if error == 0 {
                    fine += 1;
                    continue;
                }
                // Number 0 is the batch's own: the caller may not, or it could not be made to hold.
                let index = (number as usize).checked_sub(1);
                let what = index.and_then(|index| self.whats.get(index));
                let what = what.map_or("the transaction", String::as_str);
                return Err(Refused {
                    what: what.to_owned(),
                    error: io::Error::from_raw_os_error(error),
                });
            }
        }
        Ok(())
    }
}

/// All objects of a kind that fit, as the kernel shows them: their attributes.
pub(super) fn list(kind: libc::c_int, asked: &Attributes) -> io::Result<Vec<Vec<u8>>> {
    let mut socket = socket()?;
    let inet = [libc::NFPROTO_INET as u8, 0, 0, 0];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    socket.write_all(&message(
        (SUBSYSTEM << 8) | kind as u16,
        flags,
        1,
        inet,
        &asked.0,
    ))?;
    let mut found = Vec::new();
    loop {
        for answer in receive(&mut socket)? {
            match answer {
                Answer::Object(attributes) => found.push(attributes),
                Answer::Verdict { error: 0, .. } | Answer::Done => return Ok(found),
                Answer::Verdict { error, .. } => return Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

fn socket() -> io::Result<Socket> {
    let netlink = Domain::from(libc::AF_NETLINK);
    let socket = Socket::new(
        netlink,
        Type::RAW,
        Some(Protocol::from(libc::NETLINK_NETFILTER)),
    )?;
    socket.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    // An answer for each message, and all of them before anybody reads.
    socket.set_recv_buffer_size(1024 * 1024)?;
    Ok(socket)
}

fn message(
    kind: u16,
    flags: u16,
    number: u32,
    family: [u8; FAMILY_BYTES],
    attributes: &[u8],
) -> Vec<u8> {
    let length = (HEADER_BYTES + FAMILY_BYTES + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&number.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]); // from whom: the kernel knows
    bytes.extend_from_slice(&family);
    bytes.extend_from_slice(attributes);
    bytes
}

enum Answer {
    /// What became of a message: 0, or the number of an error.
    Verdict {
        number: u32,
        error: i32,
    },
    Object(Vec<u8>),
    Done,
}

fn receive(socket: &mut Socket) -> io::Result<Vec<Answer>> {
    let mut buffer = vec![0; 64 * 1024];
    let length = loop {
        match socket.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => break outcome?,
        }
    };
    let mut answers = Vec::new();
    let mut rest = &buffer[..length];
    while rest.len() >= HEADER_BYTES {
        let word =
            |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let kind = i32::from(u16::from_ne_bytes([rest[4], rest[5]]));
        let Some(body) = rest.get(HEADER_BYTES..word(0) as usize) else {
            break;
        };
        answers.push(match kind {
            libc::NLMSG_ERROR if body.len() >= 4 => {
                let error = i32::from_ne_bytes([body[0], body[1], body[2], body[3]]);
                Answer::Verdict {
                    number: word(8),
                    error: -error,
                }
            }
            libc::NLMSG_DONE => Answer::Done,
            _ => Answer::Object(body.get(FAMILY_BYTES..).unwrap_or_default().to_vec()),
        });
        rest = rest
            .get((word(0) as usize).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    match answers.is_empty() {
        false => Ok(answers),
        true => Err(io::Error::other(
            "the kernel's answer is no netlink message",
        )),
    }
}
