//! Kubernetes' quantities, as far as a sidecar's share is written in them: `100m`, `0.5`, `64Mi`.

/// `text`, if it is an amount above zero.
pub(super) fn cpu(text: &str) -> Option<String> {
    amount(text).map(|_| text.to_owned())
}

/// `text`, if it is one that a program can live in: `64` is as many bytes, and `100m` a tenth of one.
pub(super) fn memory(text: &str) -> Option<String> {
    let fits = amount(text).is_some_and(|bytes| bytes >= MEMORY_MIN);
    fits.then(|| text.to_owned())
}

/// The smaller of two, as it is written.
pub(super) fn smaller<'a>(a: &'a str, b: &'a str) -> &'a str {
    match amount(a) > amount(b) {
        true => b,
        false => a,
    }
}

/// The larger of two, as it is written.
pub(super) fn larger<'a>(a: &'a str, b: &'a str) -> &'a str {
    match amount(a) < amount(b) {
        true => b,
        false => a,
    }
}

/// However they are written: `1` and `1000m`.
pub(super) fn are_equal(a: &str, b: &str) -> bool {
    amount(a).is_some_and(|a| Some(a) == amount(b))
}

const MEMORY_MIN: f64 = 1024.0 * 1024.0;

fn amount(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    let scale = match suffix {
        "" | "m" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // Divided, not multiplied by 1e-3, which is no binary fraction: so 70m is 0.07 to the last bit.
    let number = if suffix == "m" { number / 1e3 } else { number };
    (number > 0.0 && number.is_finite()).then_some(number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantity_is_a_number_above_zero_with_a_suffix_that_is_known() {
        for text in ["100m", "0.5", "64Mi", "1e3", "2", "1Gi", "500k"] {
            assert_eq!(cpu(text).as_deref(), Some(text));
        }
        for text in ["", "0", "-1", "64MB", "Mi", "much", "1 Gi", "inf", "1e999"] {
            assert_eq!(cpu(text), None, "{text:?}");
        }
    }

    #[test]
    fn memory_that_no_program_has_room_in_is_none() {
        for text in ["64", "100m", "1e3", "500k", "1023Ki"] {
            assert_eq!(memory(text), None, "{text:?}");
        }
        for text in ["64Mi", "1Mi", "67108864", "64e6", "1G"] {
            assert_eq!(memory(text).as_deref(), Some(text));
        }
    }

    #[test]
    fn the_same_amount_is_told_however_it_is_written() {
        for milli in 1..3000 {
            let (whole, rest) = (milli / 1000, milli % 1000);
            let (milli, decimal) = (format!("{milli}m"), format!("{whole}.{rest:03}"));
            assert!(are_equal(&milli, &decimal), "{milli} {decimal}");
        }
        assert!(are_equal("1Gi", "1024Mi") && !are_equal("1G", "1Gi") && !are_equal("x", "x"));
    }

    #[test]
    fn the_smaller_one_and_the_larger_one_are_told_across_suffixes() {
        for (small, large) in [
            ("10m", "0.5"),
            ("32Mi", "1Gi"),
            ("500M", "1Gi"),
            ("5m", "10m"),
        ] {
            assert_eq!(
                (smaller(small, large), smaller(large, small)),
                (small, small)
            );
            assert_eq!((larger(small, large), larger(large, small)), (large, large));
        }
    }
}
