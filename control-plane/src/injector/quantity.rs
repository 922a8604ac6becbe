//! Kubernetes' quantities, as far as a sidecar's share is written in them: `100m`, `0.5`, `64Mi`.

/// `text`, if it is a quantity above zero.
pub(super) fn parse(text: &str) -> Option<String> {
    amount(text).map(|_| text.to_owned())
}

/// The smaller of two, as it is written.
pub(super) fn smaller<'a>(a: &'a str, b: &'a str) -> &'a str {
    match amount(a) > amount(b) {
        true => b,
        false => a,
    }
}

/// However they are written: `1` and `1000m`.
pub(super) fn are_equal(a: &str, b: &str) -> bool {
    amount(a).is_some_and(|a| Some(a) == amount(b))
}

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
            assert_eq!(parse(text).as_deref(), Some(text));
        }
        for text in ["", "0", "-1", "64MB", "Mi", "much", "1 Gi", "inf", "1e999"] {
            assert_eq!(parse(text), None, "{text:?}");
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
    fn the_smaller_one_is_told_across_suffixes() {
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
        }
    }
}
