//! What changes about the head of a message on its way through, and nothing else does.
//!
//! Connection-level headers end here (RFC 9110 section 7.6.1). Our own headers are believed only from a sidecar that
//! proved its identity; whatever else claims them is stripped.

mod kept;

use std::net::SocketAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri, Version};

pub use self::kept::Kept;
use crate::error::{Error, PROXY_ERROR};
use crate::request::Protocol;

/// `x-weir-…`: how sidecars speak to each other beside the message.
/// Too much to do, so the app has not seen it. `local`: here, others may have room; `service`: they have none either.
pub static OVERLOAD: HeaderName = HeaderName::from_static("x-weir-overload");
/// How busy the answering app is, in percent of what it can do; absent: less than half (`policy/load.rs`).
pub static LOAD: HeaderName = HeaderName::from_static("x-weir-load");
/// Which attempt this is, when it is not the first.
pub static ATTEMPT: HeaderName = HeaderName::from_static("x-weir-attempt");
/// The request reached nobody's app: trying it elsewhere is safe, whatever it was.
pub static UNPROCESSED: HeaderName = HeaderName::from_static("x-weir-unprocessed");
/// A failure after retries: do not retry it again one hop up.
pub static RETRY: HeaderName = HeaderName::from_static("x-weir-retry");
/// The answer is not what was asked for but what the policy says instead.
pub static DEGRADED: HeaderName = HeaderName::from_static("x-weir-degraded");
/// On an answer that is what it is because of a fault on purpose: the policy that says so.
pub static FAULT: HeaderName = HeaderName::from_static("x-weir-fault");
/// What a request that failed is called, for `weir explain`.
pub static OWN_REQUEST_ID: HeaderName = HeaderName::from_static("x-weir-request-id");
/// What goes first when not all can be served: believed from callers that have proven who they are.
pub static CRITICALITY: HeaderName = HeaderName::from_static("x-weir-criticality");
/// The protocol the caller's app spoke, where it is not the one between the sidecars.
pub const ORIGINAL_PROTOCOL: HeaderName = HeaderName::from_static("x-weir-protocol");

/// How long the caller will wait, where the protocol has no word for it.
pub static REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("x-request-timeout-ms");
/// Envoy's word for the same; believed, not sent.
pub static EXPECTED_TIMEOUT_MS: HeaderName =
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
/// The draft `Idempotency-Key`: the call may be repeated.
pub static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// W3C Trace Context; what all requests of one user action share.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
pub static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub static GRPC_PREVIOUS_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// Of names that only sidecars use.
pub const OWN_PREFIX: &str = "x-weir-";
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Takes out what belongs to the connection it came on. `upgrade`: the caller wants to leave HTTP, so the headers
/// that ask for it stay.
pub fn strip_connection_headers(headers: &mut HeaderMap, upgrade: bool) {
    // Most heads have none or one of them, and looking each up costs more than one look at all there are.
    let mut found = [None; CONNECTION_HEADERS.len()];
    for name in headers.keys() {
        if let Some(at) = connection_header(name) {
            found[at] = Some(&CONNECTION_HEADERS[at]);
        }
    }
    for name in found.into_iter().flatten() {
        if *name == CONNECTION {
            strip_nominated(headers, upgrade);
        } else if *name == TE {
            if headers.get(TE).is_some_and(|te| te != "trailers") {
                headers.remove(TE);
            }
        } else if !(upgrade && *name == UPGRADE) {
            headers.remove(name);
        }
    }
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// RFC 9110 section 7.6.1. `connection` is the first, because it names others.
static CONNECTION_HEADERS: [HeaderName; 9] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    TE,
    UPGRADE,
    HTTP2_SETTINGS,
];

fn connection_header(name: &HeaderName) -> Option<usize> {
    // By its first letter and length: `as_str` is free, comparing nine names is not.
    let at = match (name.as_str().as_bytes()[0], name.as_str().len()) {
        (b'c', 10) => 0,
        (b'k', 10) => 1,
        (b'p', 16) => 2,
        (b'p', 18) => 3,
        (b'p', 19) => 4,
        (b't', 17) => 5,
        (b't', 2) => 6,
        (b'u', 7) => 7,
        (b'h', 14) => 8,
        _ => return None,
    };
    (CONNECTION_HEADERS[at] == *name).then_some(at)
}

/// What the Connection header names belongs to the connection, too.
fn strip_nominated(headers: &mut HeaderMap, upgrade: bool) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // The commonest two name no header that is left after this.
        .filter(|name| !["keep-alive", "close"].contains(&name.trim()))
        .filter_map(|name| name.trim().parse().ok())
        // A caller must not be able to have these removed by naming them.
        .filter(|name| ![HOST, CONTENT_LENGTH].contains(name))
        .collect();
    headers.remove(CONNECTION);
    for name in nominated {
        if !(upgrade && name == UPGRADE) && name != TE {
            headers.remove(name);
        }
    }
}

/// Whether a field may come behind a body (RFC 9110 section 6.5.1): not what says where a message goes or ends, or what
/// becomes of its connection. Nor what sidecars say to each other, who do not read it there.
pub fn may_trail(name: &HeaderName) -> bool {
    connection_header(name).is_none()
        && ![HOST, CONTENT_LENGTH, TRAILER].contains(name)
        && !name.as_str().starts_with(OWN_PREFIX)
}

pub fn strip_trailers(trailers: &mut HeaderMap) {
    if !trailers.keys().all(may_trail) {
        let barred: Vec<HeaderName> = trailers
            .keys()
            .filter(|name| !may_trail(name))
            .cloned()
            .collect();
        for name in barred {
            trailers.remove(name);
        }
    }
}

/// What hyper takes off, and nothing that it would lose without a word.
pub fn is_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_one = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_none_or(is_one) && codings.next().is_none()
}

pub fn strip_own_headers(headers: &mut HeaderMap) {
    if has_own_headers(headers) {
        let own: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with(OWN_PREFIX))
            .cloned()
            .collect();
        for name in own {
            headers.remove(name);
        }
    }
}

pub fn has_own_headers(headers: &HeaderMap) -> bool {
    headers
        .keys()
        .any(|name| name.as_str().starts_with(OWN_PREFIX))
}

/// Of a response: all that only a sidecar can say.
pub fn strip_sidecar_headers(headers: &mut HeaderMap) {
    strip_own_headers(headers);
    headers.remove(&PROXY_ERROR);
}

/// HTTP/1.1 asks for an upgrade by two headers together (RFC 9110 section 7.8). To another HTTP there is none: a caller
/// may go on without (the same section), and RFC 9113 section 3.1 has retired it.
pub fn wants_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.contains_key(UPGRADE)
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && !tokens(headers, &UPGRADE).any(carries_requests)
}

/// All that a request says under that name. HTTP/2 has its host in the URI (RFC 9113 section 8.3.1).
pub fn values<'a>(head: &'a Parts, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let fields = head.headers.get_all(name).into_iter();
    let in_uri = *name == HOST && !head.headers.contains_key(HOST);
    let authority = head.uri.authority().filter(|_| in_uri);
    let authority = authority.map(|authority| authority.as_str().as_bytes());
    fields.map(HeaderValue::as_bytes).chain(authority)
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// Requests would follow that meet no policy: in HTTP/2, in another version of HTTP, or within TLS (RFC 2817).
fn carries_requests(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default().trim_end();
    ["h2c", "h2", "http", "tls"]
        .iter()
        .any(|carries| name.eq_ignore_ascii_case(carries))
}

/// Exactly one Host, or an authority where the protocol has one: what is ambiguous is refused rather than guessed. HTTP/1.1
/// must have a Host, whatever its target is (RFC 9112 section 3.2); a target that names an authority is right, whatever
/// Host says, and takes its place (section 3.2.2).
///
/// Who may name none, and does, means `destination`: HTTP/1.1 to the app must have a Host. A target of HTTP is never without
/// a path (RFC 9110 section 4.2.3), so that policies, HTTP/2 and HTTP/1.1 see the same.
pub fn settle_authority(head: &mut Parts, destination: SocketAddr) -> Result<(), Error> {
    settle_path(head)?;
    let mut hosts = head.headers.get_all(HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() {
        return Err(Error::BadRequest("it has more than one Host header"));
    }
    match (first, head.uri.authority()) {
        (None, _) if head.version == Version::HTTP_11 => {
            Err(Error::BadRequest("it has no Host header"))
        }
        (None, None) => {
            let host = HeaderValue::try_from(destination.to_string());
            head.headers
                .insert(HOST, host.expect("an address is visible ASCII"));
            Ok(())
        }
        (Some(host), Some(authority)) if host.as_bytes() != authority.as_str().as_bytes() => {
            if head.version == Version::HTTP_2 {
                return Err(Error::BadRequest(
                    "its Host header and its authority differ",
                ));
            }
            let host = HeaderValue::from_str(authority.as_str());
            head.headers
                .insert(HOST, host.expect("an authority is visible ASCII"));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn settle_path(head: &mut Parts) -> Result<(), Error> {
    let Some(target) = head.uri.path_and_query().map(PathAndQuery::as_str) else {
        // `GET page` is read as an authority, of which only CONNECT may consist.
        return match head.method == Method::CONNECT {
            true => Ok(()),
            false => Err(Error::BadRequest("its target has no path")),
        };
    };
    if target.starts_with('?') {
        let malformed = |_| Error::BadRequest("its target is malformed");
        let path = PathAndQuery::try_from(format!("/{target}")).map_err(malformed)?;
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.path_and_query = Some(path);
        head.uri =
            Uri::from_parts(parts).map_err(|_| Error::BadRequest("its target is malformed"))?;
    }
    Ok(())
}

/// It is for somebody else: who is asked finds its own name in it.
pub fn set_authority(head: &mut Parts, authority: &Authority) {
    if head.headers.contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str());
        head.headers
            .insert(HOST, host.expect("an authority is visible ASCII"));
    }
    if head.uri.authority().is_some() {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.authority = Some(authority.clone());
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts
            .path_and_query
            .get_or_insert(PathAndQuery::from_static("/"));
        head.uri = Uri::from_parts(parts).expect("it has all three");
    }
}

/// The head as `protocol` wants it on the next connection.
pub fn convert(head: &mut Parts, protocol: Protocol) -> Result<(), Error> {
    match protocol {
        Protocol::Http2 => to_http2(head),
        Protocol::Http1 => to_http1(head),
    }
}

/// The authority moves from the Host header into the URI, which HTTP/2 sends as pseudo-headers.
fn to_http2(head: &mut Parts) -> Result<(), Error> {
    head.version = Version::HTTP_2;
    if head.uri.authority().is_some() && head.uri.scheme().is_some() {
        head.headers.remove(HOST);
        return Ok(());
    }
    let uri = std::mem::take(&mut head.uri).into_parts();
    let authority = match (uri.authority, head.headers.remove(HOST)) {
        (Some(authority), _) => authority,
        (None, Some(host)) => Authority::from_maybe_shared(host)
            .map_err(|_| Error::BadRequest("its Host header is no authority"))?,
        // HTTP/1.0 may have none; the peer's app will not miss what its caller did not send.
        (None, None) => Authority::from_static("unnamed"),
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(uri.scheme.unwrap_or(Scheme::HTTP));
    parts.authority = Some(authority);
    parts.path_and_query = Some(uri.path_and_query.unwrap_or(PathAndQuery::from_static("/")));
    head.uri = Uri::from_parts(parts).map_err(|_| Error::BadRequest("its target is malformed"))?;
    Ok(())
}

/// The authority moves from the URI into the Host header; the target is a path.
fn to_http1(head: &mut Parts) -> Result<(), Error> {
    head.version = Version::HTTP_11;
    if let Some(authority) = head.uri.authority() {
        if !head.headers.contains_key(HOST) {
            let host = HeaderValue::from_str(authority.as_str())
                .map_err(|_| Error::BadRequest("its authority is malformed"))?;
            head.headers.insert(HOST, host);
        }
        let path = head
            .uri
            .path_and_query()
            .cloned()
            .unwrap_or(PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    // A field of its own in HTTP/2 may come as several; HTTP/1.1 knows one (RFC 9113 section 8.2.3).
    let mut cookies = head.headers.get_all(http::header::COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let mut joined = Vec::from(first.as_bytes());
        for cookie in std::iter::once(second).chain(cookies) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(cookie.as_bytes());
        }
        let joined = HeaderValue::from_bytes(&joined)
            .map_err(|_| Error::BadRequest("its cookies are malformed"))?;
        head.headers.insert(http::header::COOKIE, joined);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
