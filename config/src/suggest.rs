//! What somebody probably meant who wrote a word that we do not know.

/// Words that other meshes and libraries use for what we call otherwise.
const ELSEWHERE: &[(&str, &str)] = &[
    ("timeout", "deadline"),
    ("timeouts", "deadline"),
    ("requestTimeout", "deadline"),
    ("retry", "retries"),
    ("timeout", "perTryTimeout"),
    ("maxAttempts", "attempts"),
    ("maxRetries", "attempts"),
    ("numRetries", "attempts"),
    ("tryTimeout", "perTryTimeout"),
    ("attemptTimeout", "perTryTimeout"),
    ("backoffBase", "backoff"),
    ("baseInterval", "base"),
    ("initial", "base"),
    ("maxInterval", "max"),
    ("retryRatio", "perSuccess"),
    ("ratio", "perSuccess"),
    ("tokenRatio", "perSuccess"),
    ("maxTokens", "burst"),
    ("retryBudget", "budget"),
    ("retryBackOff", "backoff"),
    ("retryPolicy", "retries"),
    ("initialInterval", "base"),
    ("initialBackoff", "base"),
    ("minBackoff", "base"),
    ("minPenalty", "base"),
    ("maxBackoff", "max"),
    ("maxPenalty", "max"),
    ("maximum", "max"),
    ("minimum", "min"),
    ("retryableStatusCodes", "retryOn"),
    ("retryConditions", "retryOn"),
    ("statusCodes", "retryOn"),
    ("codes", "retryOn"),
    ("conditions", "retryOn"),
    ("outlierDetection", "endpointGate"),
    ("failureAccrual", "endpointGate"),
    ("consecutiveErrors", "consecutiveFailures"),
    ("consecutive5xx", "consecutiveFailures"),
    ("consecutive5xxErrors", "consecutiveFailures"),
    ("consecutiveGatewayErrors", "consecutiveFailures"),
    ("consecutiveGatewayFailure", "consecutiveFailures"),
    ("maxFailures", "consecutiveFailures"),
    ("maxEjectionTime", "maxOpenFor"),
    ("baseEjectionTime", "openFor"),
    ("maxEjectionPercent", "maxOpenPercent"),
    ("breaker", "circuitBreaker"),
    ("failureRateThreshold", "failureRate"),
    ("slowCallRateThreshold", "slowCallRate"),
    ("slowCallDurationThreshold", "slowCallDuration"),
    ("minimumNumberOfCalls", "minimumCalls"),
    ("minCalls", "minimumCalls"),
    ("minRequests", "minimumCalls"),
    ("minimumRequests", "minimumCalls"),
    ("requestVolumeThreshold", "minimumCalls"),
    ("errorRate", "failureRate"),
    ("errorThresholdPercentage", "failureRate"),
    ("failureThreshold", "failureRate"),
    ("slowCallThreshold", "slowCallDuration"),
    ("slidingWindowSize", "window"),
    ("waitDurationInOpenState", "openFor"),
    ("openDuration", "openFor"),
    ("sleepWindow", "openFor"),
    ("resetTimeout", "openFor"),
    ("cooldown", "openFor"),
    ("halfOpenRequests", "halfOpenCalls"),
    ("halfOpenMaxCalls", "halfOpenCalls"),
    ("permittedNumberOfCallsInHalfOpenState", "halfOpenCalls"),
    ("hedge", "hedging"),
    ("hedgePolicy", "hedging"),
    ("percentile", "afterPercentile"),
    ("maxExtraPercent", "maxExtra"),
    ("loadBalancer", "loadBalancing"),
    ("lb", "loadBalancing"),
    ("lbPolicy", "loadBalancing"),
    ("policy", "algorithm"),
    ("simple", "algorithm"),
    ("warmup", "slowStart"),
    ("warmupDurationSecs", "slowStart"),
    ("slowStartWindow", "slowStart"),
    ("locality", "zone"),
    ("useSourceIp", "attribute"),
    ("maxConcurrency", "inFlight"),
    ("maxConcurrent", "inFlight"),
    ("maxRequests", "inFlight"),
    ("http2MaxRequests", "inFlight"),
    ("bulkhead", "inFlight"),
    ("maxConnections", "connections"),
    ("maxPending", "queue"),
    ("maxPendingRequests", "queue"),
    ("http1MaxPendingRequests", "queue"),
    ("queueSize", "queue"),
    ("maxQueue", "queue"),
    ("perHost", "perEndpoint"),
    ("length", "size"),
    ("queue", "limits"),
    ("size", "queue"),
    ("rps", "requestsPerSecond"),
    ("rate", "requestsPerSecond"),
    ("body", "message"),
    ("status", "httpStatus"),
    ("statusCode", "httpStatus"),
    ("code", "httpStatus"),
    ("grpcCode", "grpcStatus"),
    ("cache", "stale"),
    ("ttl", "maxAge"),
    ("backend", "alternate"),
    ("service", "name"),
    ("percent", "percentage"),
    ("fixedDelay", "time"),
    ("until", "endsAt"),
    ("expiresAt", "endsAt"),
    ("prefix", "pathPrefix"),
    ("uri", "path"),
    ("principals", "identity"),
    ("principal", "identity"),
    ("source", "identity"),
    ("port", "sectionName"),
    ("AuthPolicy", "AuthorizationPolicy"),
    ("Auth", "AuthorizationPolicy"),
    ("Fault", "FaultPolicy"),
    ("FaultInjection", "FaultPolicy"),
    ("Resilience", "ResiliencePolicy"),
    ("CircuitBreaker", "ResiliencePolicy"),
    ("RetryPolicy", "ResiliencePolicy"),
    ("Retry", "ResiliencePolicy"),
    ("5xx", "ServerError"),
    ("500", "ServerError"),
    ("gatewayError", "Unavailable"),
    ("502", "Unavailable"),
    ("503", "Unavailable"),
    ("504", "Unavailable"),
    ("timeout", "Unavailable"),
    ("reset", "Unavailable"),
    ("connectFailure", "Unprocessed"),
    ("refusedStream", "Unprocessed"),
    ("1", "Cancelled"),
    ("2", "Unknown"),
    ("3", "InvalidArgument"),
    ("4", "DeadlineExceeded"),
    ("5", "NotFound"),
    ("6", "AlreadyExists"),
    ("7", "PermissionDenied"),
    ("8", "ResourceExhausted"),
    ("9", "FailedPrecondition"),
    ("10", "Aborted"),
    ("11", "OutOfRange"),
    ("12", "Unimplemented"),
    ("13", "Internal"),
    ("14", "Unavailable"),
    ("15", "DataLoss"),
    ("16", "Unauthenticated"),
    ("p2c", "PeakEwma"),
    ("ewma", "PeakEwma"),
    ("maxWait", "queueTimeout"),
    ("off", "Disabled"),
    ("none", "Disabled"),
    ("roundRobin", "LeastRequest"),
    ("leastConn", "LeastRequest"),
    ("ringHash", "ConsistentHash"),
    ("maglev", "ConsistentHash"),
    ("hashBalanceFactor", "boundedLoad"),
    ("httpHeaderName", "header"),
    ("httpCookie", "cookie"),
    ("localityLbSetting", "zone"),
];

/// The candidate that is the same word written otherwise, or what others call it.
pub(crate) fn same<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = flat(word);
    let known = |name: &str| {
        candidates
            .iter()
            .copied()
            .find(|candidate| *candidate == name)
    };
    (candidates.iter().copied())
        .find(|candidate| flat(candidate) == word)
        .or_else(|| {
            let theirs = ELSEWHERE.iter().filter(|(theirs, _)| flat(theirs) == word);
            theirs.filter_map(|(_, ours)| known(ours)).next()
        })
}

/// The candidate that was probably meant, when one is near enough to say so.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    if let Some(same) = same(word, candidates) {
        return Some(same);
    }
    let tolerance = match word.chars().count() {
        0..=2 => return None,
        3..=4 => 1,
        5..=8 => 2,
        _ => 3,
    };
    (candidates.iter().copied())
        .map(|candidate| (distance(&flat(word), &flat(candidate)), candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Without case and the signs between words: `per_try_timeout` is `perTryTimeout`.
fn flat(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .take(64)
        .flat_map(char::to_lowercase)
        .collect()
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before[j - 2] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [&str; 5] = ["attempts", "perTryTimeout", "backoff", "budget", "retryOn"];

    #[test]
    fn a_slip_is_recognised() {
        for (word, meant) in [
            ("atempts", "attempts"),
            ("per_try_timeout", "perTryTimeout"),
            ("PerTryTimeout", "perTryTimeout"),
            ("perTryTimout", "perTryTimeout"),
            ("bakcoff", "backoff"),
            ("maxRetries", "attempts"),
        ] {
            assert_eq!(nearest(word, &FIELDS), Some(meant), "{word}");
        }
    }

    #[test]
    fn a_stranger_is_not() {
        for word in ["x", "on", "deadline", "hedging", ""] {
            assert_eq!(nearest(word, &FIELDS), None, "{word}");
        }
    }
}
