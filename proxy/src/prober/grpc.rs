//! The probe `grpc`: one call of `grpc.health.v1.Health/Check`.
//!
//! The messages have one field each, so they are written and read here, by hand.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{AskError, ProbeResult};

/// A HealthCheckResponse has two bytes; some more for fields to come.
const ANSWER_BYTES_MAX: usize = 1024;
const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;

/// Flag and length in front of every message.
const FRAME_HEADER_BYTES: usize = 5;

const CODE_OK: u16 = 0;
const CODE_NOT_FOUND: u16 = 5;
const CODE_UNIMPLEMENTED: u16 = 12;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;

pub(super) async fn check(
    service: &str,
    address: SocketAddr,
    stream: TcpStream,
) -> Result<ProbeResult, AskError> {
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, super::USER_AGENT)
        .body(Full::new(question(service)))?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async { Answer::read(sender.send_request(request).await?).await };
    let answer = super::drive(exchange, connection).await?;
    Ok(answer.judge(service, address))
}

struct Answer {
    http: StatusCode,
    code: Option<u16>,
    message: Vec<u8>,
}

impl Answer {
    async fn read(response: http::Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, mut body) = response.into_parts();
        // A call that fails at once has its code here and no trailers.
        let mut code = grpc_code(&head.headers);
        let mut message = Vec::new();
        while message.len() <= ANSWER_BYTES_MAX
            && let Some(frame) = body.frame().await
        {
            let frame = frame?;
            if let Some(data) = frame.data_ref() {
                message.extend_from_slice(&data[..data.len().min(ANSWER_BYTES_MAX)]);
            }
            code = code.or_else(|| frame.trailers_ref().and_then(grpc_code));
        }
        Ok(Self {
            http: head.status,
            code,
            message,
        })
    }

    fn judge(&self, service: &str, address: SocketAddr) -> ProbeResult {
        let Self {
            http,
            code,
            message,
        } = self;
        let serving = serving_status(message);
        let named = if service.is_empty() {
            String::new()
        } else {
            format!(" service {service:?}")
        };
        let says = match (*code, serving) {
            _ if *http != StatusCode::OK => format!("answered HTTP {http}: it is no gRPC server"),
            (None, _) => "answered without a grpc-status".to_owned(),
            (Some(CODE_UNIMPLEMENTED), _) => "does not implement grpc.health.v1.Health".to_owned(),
            (Some(CODE_NOT_FOUND), _) => format!("does not know the{named}"),
            (Some(CODE_OK), Some(SERVING)) => format!("is SERVING{named}"),
            (Some(CODE_OK), Some(2)) => format!("is NOT_SERVING{named}"),
            (Some(CODE_OK), Some(status)) => {
                format!("answered with the serving status {status}{named}")
            }
            (Some(CODE_OK), None) => {
                "answered with something that is no HealthCheckResponse".to_owned()
            }
            (Some(code), _) => format!("answered with gRPC code {code}"),
        };
        let ok = *http == StatusCode::OK && *code == Some(CODE_OK) && serving == Some(SERVING);
        ProbeResult {
            ok,
            status: *code,
            detail: format!("{address} {says}"),
        }
    }
}

fn grpc_code(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A framed `HealthCheckRequest { string service = 1 }`.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a); // field 1, length-delimited
        put_varint(&mut message, service.len() as u64);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::with_capacity(FRAME_HEADER_BYTES + message.len());
    framed.put_u8(0); // not compressed
    framed.put_u32(message.len() as u32);
    framed.extend_from_slice(&message);
    framed.freeze()
}

fn put_varint(message: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        message.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

/// Field 1 of a framed `HealthCheckResponse { ServingStatus status = 1 }`; None when it is not one.
fn serving_status(framed: &[u8]) -> Option<u64> {
    let (header, message) = framed.split_at_checked(FRAME_HEADER_BYTES)?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    if header[0] != 0 || message.len() != length as usize {
        return None;
    }
    let (mut rest, mut status) = (message, 0); // an absent field is 0: UNKNOWN
    while !rest.is_empty() {
        let tag = take_varint(&mut rest)?;
        let skipped = match tag & 7 {
            0 => {
                let value = take_varint(&mut rest)?;
                status = if tag >> 3 == 1 { value } else { status };
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_question_is_the_message_of_the_protocol() {
        assert_eq!(&question("")[..], b"\0\0\0\0\0");
        assert_eq!(&question("cart")[..], b"\0\0\0\0\x06\x0a\x04cart");
        let long = "s".repeat(300);
        assert_eq!(&question(&long)[..8], b"\0\0\0\x01\x2f\x0a\xac\x02");
    }

    #[test]
    fn the_answer_is_read_past_fields_to_come() {
        assert_eq!(serving_status(b"\0\0\0\0\x02\x08\x01"), Some(SERVING));
        assert_eq!(serving_status(b"\0\0\0\0\0"), Some(0));
        let more = b"\0\0\0\0\x16\x12\x02hi\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x08\x01\x20\x05";
        assert_eq!(serving_status(more), Some(SERVING));
        for no_answer in [
            &b""[..],
            b"\x01\0\0\0\x02\x08\x01",   // compressed
            b"\0\0\0\0\x03\x08\x01",     // cut
            b"\0\0\0\0\x02\x08\x81",     // a varint without end
            b"\0\0\0\0\x02\x0b\x01",     // a group
            b"\0\0\0\0\x03\x12\xff\x01", // longer than the message
        ] {
            assert_eq!(serving_status(no_answer), None, "{no_answer:?}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let framed = [&[0, 0, 0, 0, bytes.len() as u8], &bytes[..]].concat();
            serving_status(&framed);
            serving_status(&bytes);
        }
    }
}
