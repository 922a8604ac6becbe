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

fn amount(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[number.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
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
