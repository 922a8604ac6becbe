//! What somebody probably meant who wrote a word that we do not know.

/// Words that other meshes and libraries use for what we call otherwise.
const ELSEWHERE: &[(&str, &str)] = &[
    ("timeout", "deadline"),
    ("requestTimeout", "deadline"),
    ("retry", "retries"),
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
    ("retryableStatusCodes", "retryOn"),
    ("outlierDetection", "endpointGate"),
    ("baseEjectionTime", "openFor"),
    ("maxEjectionPercent", "maxOpenPercent"),
    ("breaker", "circuitBreaker"),
    ("failureRateThreshold", "failureRate"),
    ("slowCallRateThreshold", "slowCallRate"),
    ("slowCallDurationThreshold", "slowCallDuration"),
    ("minimumNumberOfCalls", "minimumCalls"),
    ("waitDurationInOpenState", "openFor"),
    ("loadBalancer", "loadBalancing"),
    ("maxConcurrency", "inFlight"),
    ("queue", "limits"),
    ("size", "queue"),
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

/// The candidate that was probably meant, when one is near enough to say so.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let known = |name: &str| {
        candidates
            .iter()
            .copied()
            .find(|candidate| *candidate == name)
    };
    if let Some(same) = candidates
        .iter()
        .find(|candidate| flat(candidate) == flat(word))
    {
        return Some(same);
    }
    let elsewhere = ELSEWHERE
        .iter()
        .find(|(theirs, _)| flat(theirs) == flat(word));
    if let Some(ours) = elsewhere.and_then(|(_, ours)| known(ours)) {
        return Some(ours);
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
