//! Answers that are kept for when nobody gives a fresh one (RFC 5861, `stale-if-error`).
//!
//! ```text
//!   GET, 200, whole ──terms──▶ kept by service, authority, path and what Vary names
//!                     │                          │
//!                     └─▶ not kept: private,     ├─▶ found while not too old: by the policy, and by its own word
//!                         secret, too long       └─▶ forgotten: too old, replaced, or the oldest of too many
//! ```
//!
//! This is no cache that saves anybody a call: whoever can answer is asked. It is shared by all that the app asks for, so
//! what was answered to somebody with credentials is kept only where the answer says that it is everybody's
//! (RFC 9111 section 3.5), and what sets a cookie never is.
//!
//! Bounded in bytes (heads, keys and bodies) and in answers; when there are too many, what was kept the longest time ago
//! goes first.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AGE, AUTHORIZATION, CACHE_CONTROL, COOKIE, HOST, SET_COOKIE, VARY};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tokio::time::Instant;

/// Of one answer's body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Answers to one URL that differ by what `Vary` names.
const VARIANTS_MAX: usize = 8;
/// An answer that was kept less than this ago is not replaced: an URL that is asked for a thousand times a second is not
/// copied a thousand times.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// URLs that share one of them keep each other's answers from being kept for a moment, which harms nobody.
const CHANGES: usize = 256;
/// What an answer costs beside its texts.
const OVERHEAD_BYTES: usize = 512;

/// What a kept answer answers. `Vary` tells answers to one URL apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url(Box<str>);

impl Url {
    /// `service`: as the mesh knows it; the same name may mean another one tomorrow.
    pub fn of(service: &str, head: &Parts) -> Option<Self> {
        let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = head.uri.authority().map(|authority| authority.as_str());
        let path = head.uri.path_and_query().map(|path| path.as_str());
        // A space is in none of them.
        let url = format!("{service} {} {}", authority.or(host)?, path.unwrap_or("/"));
        Some(Self(url.into()))
    }
}

/// Under which conditions an answer may be kept, and given to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What the request said in the headers that `Vary` names.
    vary: Vec<(HeaderName, Vec<HeaderValue>)>,
    /// To those with credentials too, whosever they are.
    public: bool,
    /// As the answer says: no older than this, whatever the policy says.
    age_max: Option<Duration>,
    /// How old it was when it came.
    age: Duration,
}

impl Terms {
    /// `None`: it may not be kept.
    pub fn of(request: &Parts, status: StatusCode, answer: &HeaderMap) -> Option<Self> {
        let asked = Directives::of(&request.headers);
        let said = Directives::of(answer);
        let kept = request.method == Method::GET
            && status == StatusCode::OK
            && !asked.no_store
            && !said.no_store
            && !said.no_stale
            && !answer.contains_key(SET_COOKIE)
            && (said.public || !has_credentials(&request.headers));
        if !kept {
            return None;
        }
        let mut vary = Vec::new();
        for name in answer.get_all(VARY).iter().flat_map(words) {
            // `*` (which is a name by its letters), or what is none: nobody knows what it depends on.
            let name = name.filter(|name| *name != "*")?;
            let name: HeaderName = name.parse().ok()?;
            let values = request.headers.get_all(&name).iter().cloned().collect();
            vary.push((name, values));
        }
        Some(Self {
            vary,
            public: said.public,
            age_max: said.age_max(),
            age: answer.get(AGE).and_then(seconds).unwrap_or_default(),
        })
    }

    /// Whether an answer that is not kept says that those from before are true no longer: what was there has gone or moved,
    /// or nobody is to keep it from now on. What is wrong with a request says nothing of the kind.
    pub fn outdate(status: StatusCode, answer: &HeaderMap) -> bool {
        match status.as_u16() {
            200 => {
                let said = Directives::of(answer);
                said.no_store || said.no_stale
            }
            301 | 302 | 303 | 307 | 308 | 404 | 410 => true,
            _ => false,
        }
    }

    fn serve(&self, request: &HeaderMap) -> bool {
        let same = |(name, values): &(HeaderName, Vec<HeaderValue>)| {
            request.get_all(name).iter().eq(values.iter())
        };
        (self.public || !has_credentials(request)) && self.vary.iter().all(same)
    }
}

fn has_credentials(request: &HeaderMap) -> bool {
    request.contains_key(AUTHORIZATION) || request.contains_key(COOKIE)
}

/// What `Cache-Control` says that matters here. A number that cannot be read is zero.
#[derive(Default)]
struct Directives {
    /// `no-store` or `private`.
    no_store: bool,
    /// Fresh or not at all: `no-cache`, `must-revalidate`, `proxy-revalidate`.
    no_stale: bool,
    no_cache: bool,
    public: bool,
    max_age: Option<Duration>,
    /// Fresh for so long, and not at all after that (RFC 9111 section 4.2.4).
    shared_max_age: Option<Duration>,
    stale_if_error: Option<Duration>,
}

impl Directives {
    fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            for word in words(value) {
                found.read(word.unwrap_or("no-store"));
            }
        }
        found
    }

    fn read(&mut self, word: &str) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let span = || {
            let digits = value.trim().trim_matches('"');
            Duration::from_secs(digits.parse().unwrap_or(0))
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "private" => self.no_store = true,
            "no-cache" => (self.no_cache, self.no_stale) = (true, true),
            "must-revalidate" | "proxy-revalidate" => self.no_stale = true,
            "public" => self.public = true,
            "max-age" => self.max_age = Some(span()),
            "s-maxage" => self.shared_max_age = Some(span()),
            "stale-if-error" => self.stale_if_error = Some(span()),
            _ => {}
        }
    }

    fn age_max(&self) -> Option<Duration> {
        let fresh = self.max_age.unwrap_or_default();
        let stale = self.stale_if_error.map(|stale| fresh.saturating_add(stale));
        self.shared_max_age.or(stale)
    }
}

/// `None`: it is not even text.
fn words(value: &HeaderValue) -> impl Iterator<Item = Option<&str>> {
    let text = value.to_str().ok();
    let unreadable = text.is_none().then_some(None);
    let words = text.into_iter().flat_map(|text| text.split(','));
    let words = words.map(str::trim).filter(|word| !word.is_empty());
    unreadable.into_iter().chain(words.map(Some))
}

fn seconds(value: &HeaderValue) -> Option<Duration> {
    Some(Duration::from_secs(
        value.to_str().ok()?.trim().parse().ok()?,
    ))
}

/// What is given to whoever would have got an error.
#[derive(Clone, Debug)]
pub struct Answer {
    pub headers: HeaderMap,
    pub body: Bytes,
    pub age: Duration,
}

/// At most so much in all.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub answers: usize,
    pub bytes: usize,
}

#[derive(Debug)]
pub struct Stale {
    answers: HashMap<Url, Vec<Kept>>,
    /// From the one that was kept first to the one that was kept last.
    order: BTreeMap<u64, Url>,
    next: u64,
    bytes: usize,
    bounds: Bounds,
    /// When what was kept last became untrue, by a hash of its URL: whoever was asked before that may not know yet.
    changed: Box<[Option<Instant>; CHANGES]>,
}

#[derive(Debug)]
struct Kept {
    number: u64,
    terms: Terms,
    at: Instant,
    headers: HeaderMap,
    body: Bytes,
    bytes: usize,
}

impl Kept {
    fn age(&self, now: Instant) -> Duration {
        let here = now.saturating_duration_since(self.at);
        self.terms.age.saturating_add(here)
    }
}

impl Stale {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            answers: HashMap::new(),
            order: BTreeMap::new(),
            next: 0,
            bytes: 0,
            bounds,
            changed: Box::new([None; CHANGES]),
        }
    }

    /// (answers, bytes)
    pub fn size(&self) -> (usize, usize) {
        (self.order.len(), self.bytes)
    }

    /// Whether an answer to this request would be news.
    pub fn wants(&self, url: &Url, request: &HeaderMap, now: Instant) -> bool {
        let recent = |kept: &Kept| {
            now.saturating_duration_since(kept.at) < REFRESH_EVERY && kept.terms.serve(request)
        };
        !(self
            .answers
            .get(url)
            .is_some_and(|all| all.iter().any(recent)))
    }

    /// Keeps an answer in place of the one to the same question. What is larger than all there may be is not kept.
    pub fn keep(&mut self, url: Url, terms: Terms, headers: HeaderMap, body: Bytes, now: Instant) {
        let bytes = size(&url, &terms, &headers, &body);
        let same = |kept: &Kept| kept.terms.vary == terms.vary && kept.terms.public == terms.public;
        let newer = |kept: &Kept| same(kept) && kept.at > now;
        if (self.answers.get(&url)).is_some_and(|all| all.iter().any(newer)) {
            return;
        }
        self.remove(&url, same);
        if bytes > self.bounds.bytes || body.len() > BODY_BYTES_MAX || self.bounds.answers == 0 {
            return;
        }
        let variants = self.answers.get(&url).map_or(&[][..], |all| all);
        if variants.len() >= VARIANTS_MAX
            && let Some(oldest) = variants.iter().map(|kept| kept.number).min()
        {
            self.remove(&url, |kept| kept.number == oldest);
        }
        let number = self.next;
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(number, url.clone());
        self.answers.entry(url).or_default().push(Kept {
            number,
            terms,
            at: now,
            headers,
            body,
            bytes,
        });
        while self.bytes > self.bounds.bytes || self.order.len() > self.bounds.answers {
            let Some((&oldest, url)) = self.order.first_key_value() else {
                return;
            };
            let url = url.clone();
            self.remove(&url, |kept| kept.number == oldest);
        }
    }

    /// The answer to this request, if there is one that is no older than `age_max` and what it says itself.
    pub fn find(
        &mut self,
        url: &Url,
        request: &HeaderMap,
        age_max: Duration,
        now: Instant,
    ) -> Option<Answer> {
        if Directives::of(request).no_cache {
            return None;
        }
        self.remove(url, |kept| {
            kept.age(now) > kept.terms.age_max.unwrap_or(Duration::MAX)
        });
        let all = self.answers.get(url)?.iter();
        let newest = all
            .filter(|kept| kept.terms.serve(request) && kept.age(now) <= age_max)
            .max_by_key(|kept| kept.number)?;
        Some(Answer {
            headers: newest.headers.clone(),
            body: newest.body.clone(),
            age: newest.age(now),
        })
    }

    /// Something was written there: what was read before is not true any more (RFC 9111 section 4.4).
    pub fn forget(&mut self, url: &Url, now: Instant) {
        self.changed[change(url)] = Some(now);
        self.remove(url, |_| true);
    }

    /// Whether an answer to who asked then may be from before something was written there.
    pub fn has_changed_since(&self, url: &Url, asked: Instant) -> bool {
        self.changed[change(url)].is_some_and(|changed| changed >= asked)
    }

    /// There is a newer answer to this request, and that is not kept.
    pub fn outdate(&mut self, url: &Url, request: &HeaderMap, now: Instant) {
        self.changed[change(url)] = Some(now);
        self.remove(url, |kept| kept.terms.serve(request));
    }

    fn remove(&mut self, url: &Url, is_meant: impl Fn(&Kept) -> bool) {
        let Some(all) = self.answers.get_mut(url) else {
            return;
        };
        for gone in all.extract_if(.., |kept| is_meant(kept)) {
            self.order.remove(&gone.number);
            self.bytes -= gone.bytes;
        }
        if all.is_empty() {
            self.answers.remove(url);
        }
    }
}

fn change(url: &Url) -> usize {
    let mut hasher = DefaultHasher::new();
    url.hash(&mut hasher);
    hasher.finish() as usize % CHANGES
}

fn size(url: &Url, terms: &Terms, headers: &HeaderMap, body: &Bytes) -> usize {
    let headers: usize = (headers.iter())
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    let vary: usize = (terms.vary.iter())
        .map(|(name, values)| {
            name.as_str().len() + values.iter().map(HeaderValue::len).sum::<usize>()
        })
        .sum();
    // The URL is kept twice.
    OVERHEAD_BYTES + 2 * url.0.len() + vary + headers + body.len()
}

#[cfg(test)]
mod tests;
