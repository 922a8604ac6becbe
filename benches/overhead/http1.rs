//! Both ends of HTTP/1.1, as cheap as they can be: the bytes of the one request and the one answer never change.

use tokio::time::Instant;

use crate::connection::{Done, Fault};
use crate::shape::SMALL;

const REQUEST: &[u8] =
    b"GET /catalog/items/42 HTTP/1.1\r\nhost: catalog\r\nuser-agent: weir-bench\r\naccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\nserver: bench\r\n\r\n";
const END_OF_HEAD: &[u8] = b"\r\n\r\n";
/// Proxies add a few fields; this many bytes are no head any more.
const HEAD_MAX: usize = 16 * 1024;

#[derive(Default)]
pub struct Client {
    inbox: Vec<u8>,
    asked: Option<Instant>,
}

impl Client {
    pub fn ask(&mut self, intended: Instant, outbox: &mut Vec<u8>) {
        outbox.extend_from_slice(REQUEST);
        self.asked = Some(intended);
    }

    pub fn outstanding(&self) -> usize {
        usize::from(self.asked.is_some())
    }

    pub fn take(&mut self, bytes: &[u8], done: &mut Vec<Done>) -> Result<(), Fault> {
        self.inbox.extend_from_slice(bytes);
        let Some(answer) = parse_answer(&self.inbox)? else {
            return Ok(());
        };
        if self.inbox.len() > answer.bytes {
            return Err(Fault("more bytes than one answer"));
        }
        self.inbox.clear();
        let intended = self.asked.take().ok_or(Fault("an answer to nothing"))?;
        done.push(Done {
            intended,
            fine: answer.status == 200,
        });
        Ok(())
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    /// Head and body.
    bytes: usize,
}

/// The answer at the beginning of `bytes`, once it is all there.
fn parse_answer(bytes: &[u8]) -> Result<Option<Answer>, Fault> {
    let Some(head) = head_bytes(bytes)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| Fault("a head that is no text"))?;
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let status = status.ok_or(Fault("no status line"))?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let length = length.ok_or(Fault("an answer without content-length"))?;
    let whole = Answer {
        status,
        bytes: head + length,
    };
    Ok((bytes.len() >= whole.bytes).then_some(whole))
}

fn head_bytes(bytes: &[u8]) -> Result<Option<usize>, Fault> {
    let end = bytes
        .windows(END_OF_HEAD.len())
        .position(|window| window == END_OF_HEAD);
    match end {
        Some(end) => Ok(Some(end + END_OF_HEAD.len())),
        None if bytes.len() > HEAD_MAX => Err(Fault("a head without end")),
        None => Ok(None),
    }
}

#[derive(Default)]
pub struct Server {
    inbox: Vec<u8>,
}

impl Server {
    pub fn take(&mut self, bytes: &[u8], outbox: &mut Vec<u8>) -> Result<(), Fault> {
        self.inbox.extend_from_slice(bytes);
        while let Some(head) = head_bytes(&self.inbox)? {
            // Requests have no body.
            self.inbox.drain(..head);
            outbox.extend_from_slice(ANSWER);
            outbox.extend_from_slice(&[b'x'; SMALL]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let head = "HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\n";
        for cut in 0..head.len() + 3 {
            let text = format!("{head}abc");
            assert_eq!(
                parse_answer(&text.as_bytes()[..cut]),
                Ok(None),
                "cut at {cut}"
            );
        }
        let whole = parse_answer(format!("{head}abc").as_bytes());
        let expected = Answer {
            status: 503,
            bytes: head.len() + 3,
        };
        assert_eq!(whole, Ok(Some(expected)));
    }

    #[test]
    fn an_answer_of_unknown_length_is_refused_rather_than_waited_for() {
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(
            parse_answer(chunked),
            Err(Fault("an answer without content-length"))
        );
    }

    #[test]
    fn the_server_answers_every_request_also_when_two_come_at_once_and_in_pieces() {
        let (mut server, mut outbox) = (Server::default(), Vec::new());
        let both = [REQUEST, REQUEST].concat();
        let (first, second) = both.split_at(REQUEST.len() + 10);
        server.take(first, &mut outbox).unwrap();
        assert_eq!(outbox.len(), ANSWER.len() + SMALL);
        server.take(second, &mut outbox).unwrap();
        assert_eq!(outbox.len(), 2 * (ANSWER.len() + SMALL));
    }
}
