//! Rate limits that contradict each other, or could never count anything.

use super::Contradiction;
use crate::resource::{RateLimit, RateLimitKey, ResiliencePolicy};

/// Each costs every request a look at its bucket.
const RATE_LIMITS_MAX: usize = 4;
const ONE: &str = "spec.inbound.rateLimit";
const SEVERAL: &str = "spec.inbound.rateLimits";

pub(super) fn check(policy: &ResiliencePolicy, found: &mut Vec<Contradiction>) {
    let Some(inbound) = &policy.spec.inbound else {
        return;
    };
    let several = &inbound.rate_limits;
    if inbound.rate_limit.is_some() && !several.is_empty() {
        found.push(
            Contradiction::error(
                ONE,
                "a policy has one rateLimit or a list of rateLimits, not both",
            )
            .also(SEVERAL, "the list")
            .help("write it as one more item of the list"),
        );
    }
    if several.len() > RATE_LIMITS_MAX {
        let message = format!(
            "a policy may have {RATE_LIMITS_MAX} rate limits, found {}",
            several.len()
        );
        found.push(Contradiction::error(SEVERAL, message));
        return; // comparing thousands with each other is what somebody may be after
    }
    if let Some(limit) = &inbound.rate_limit {
        check_key(limit, ONE, found);
    }
    for (index, limit) in several.iter().enumerate() {
        let path = format!("{SEVERAL}[{index}]");
        check_key(limit, &path, found);
        if let Some(first) = (several[..index].iter()).position(|other| key(other) == key(limit)) {
            found.push(
                Contradiction::error(
                    format!("{path}.per"),
                    "an earlier limit counts the same requests together",
                )
                .also(format!("{SEVERAL}[{first}]"), "first here")
                .help("keep the stricter one"),
            );
        }
    }
    check_total(several, found);
}

/// What cannot be reached is not what was meant.
fn check_total(limits: &[RateLimit], found: &mut Vec<Contradiction>) {
    let is_total = |limit: &RateLimit| key(limit).0 == RateLimitKey::Total;
    let Some(total) = limits.iter().position(is_total) else {
        return;
    };
    let most = limits[total].requests_per_second;
    for (index, limit) in limits.iter().enumerate() {
        if !is_total(limit) && limit.requests_per_second > most {
            let message = format!(
                "one of them may make {} requests a second, but all together only {}",
                limit.requests_per_second.get(),
                most.get()
            );
            let field = |index: usize| format!("{SEVERAL}[{index}].requestsPerSecond");
            found.push(
                Contradiction::warning(field(index), message)
                    .also(field(total), "all together")
                    .help("the smaller of the two is what counts"),
            );
        }
    }
}

fn check_key(limit: &RateLimit, path: &str, found: &mut Vec<Contradiction>) {
    let is_per_header = limit.per == Some(RateLimitKey::Header);
    match &limit.header {
        None if is_per_header => {
            let mut missing = Contradiction::error(
                format!("{path}.per"),
                "a limit for each value of a header needs the header's name",
            )
            .help("write it beside it: {per: Header, header: x-tenant}");
            missing.looked_at.push(format!("{path}.header"));
            found.push(missing);
        }
        Some(_) if !is_per_header => found.push(
            Contradiction::error(
                format!("{path}.header"),
                "a header's name has no effect unless requests are counted per header",
            )
            .help("write per: Header beside it, or take it out"),
        ),
        Some(name) if name.as_str().to_ascii_lowercase().starts_with("x-weir-") => found.push(
            Contradiction::error(
                format!("{path}.header"),
                format!("`{name}` is between sidecars: no request has it when it is counted"),
            )
            .help("to limit each caller, write per: Caller: that goes by proven identity"),
        ),
        None | Some(_) => {}
    }
}

/// As they are compared: header names know no case, and a limit without `per` is everybody's.
fn key(limit: &RateLimit) -> (RateLimitKey, Option<String>) {
    let name = (limit.header.as_ref()).map(|name| name.as_str().to_ascii_lowercase());
    (limit.per.unwrap_or_default(), name)
}
