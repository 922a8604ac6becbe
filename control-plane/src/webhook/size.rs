//! How much would be made of a JSON text, before anything is: a value has a few bytes there and a hundred and more here.

/// Most pods have a few hundred, the largest some thousands.
const VALUES_MAX: usize = 30_000;
/// The parser gives up a little later, and so does the API server's.
const DEPTH_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("a review may have {VALUES_MAX} values")]
    Values,
    #[error("a review may be {DEPTH_MAX} levels deep")]
    Depth,
}

/// Of a text that is no JSON it says what holds for its beginning, which is all that a parser makes something of.
pub(super) fn check(text: &[u8]) -> Result<(), TooMuch> {
    let (mut values, mut depth) = (1usize, 0usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_text(&mut bytes),
            // Each value but the first stands behind one of these.
            b',' => values += 1,
            b'[' | b'{' => {
                values += 1;
                depth += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if values > VALUES_MAX {
            return Err(TooMuch::Values);
        }
        if depth > DEPTH_MAX {
            return Err(TooMuch::Depth);
        }
    }
    Ok(())
}

fn skip_text(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_wherever_they_are_and_texts_are_not_looked_into() {
        let zeros = |n: usize| format!("[{}0]", "0,".repeat(n));
        assert_eq!(check(zeros(VALUES_MAX - 3).as_bytes()), Ok(()));
        assert_eq!(check(zeros(VALUES_MAX).as_bytes()), Err(TooMuch::Values));
        let maps = format!("[{}0]", "{\"a\":[]},".repeat(VALUES_MAX / 3 + 1));
        assert_eq!(check(maps.as_bytes()), Err(TooMuch::Values));
        let text = format!("{{\"a\\\"{{\":\"{}\"}}", "[\\\\,{\\\"".repeat(VALUES_MAX));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        assert_eq!(check(text.as_bytes()), Ok(()));
        assert_eq!(check(b"\"\\"), Ok(()), "a text that breaks off");
    }

    #[test]
    fn what_is_too_deep_is_refused_and_what_only_is_long_is_not() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert_eq!(check(nested(DEPTH_MAX).as_bytes()), Ok(()));
        assert_eq!(check(nested(DEPTH_MAX + 1).as_bytes()), Err(TooMuch::Depth));
        let long = format!("[{}0]", "[[]],".repeat(DEPTH_MAX * 2));
        assert_eq!(check(long.as_bytes()), Ok(()));
    }
}
