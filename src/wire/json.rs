//! What all JSON in this room is held to before anything walks it: how deep it may nest.
//!
//! Invariant: nothing is handed to a parser, or to a client's parser, that recurses deeper than [`NESTING_MAX`] and
//! an envelope.

/// How deep an update's JSON may nest. Below the limits of the parsers that clients use (serde_json stops at 128 by
/// default).
pub const NESTING_MAX: usize = 64;

/// Whether valid JSON opens no more than `max` arrays and objects inside each other. Of text that is not JSON it says
/// nothing of use.
pub fn nests_at_most(json: &str, max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' if depth == max => return false,
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings_only() {
        let rows = [
            ("1", 0, true),
            ("[]", 0, false),
            ("[]", 1, true),
            (r#"{"a":[]}"#, 1, false),
            ("[[],[],[]]", 2, true),
            (r#""[[[[""#, 0, true),
            (r#"["\"[[[",[]]"#, 2, true),
            (r#"["\\",[[]]]"#, 2, false),
        ];
        for (json, max, expected) in rows {
            assert_eq!(nests_at_most(json, max), expected, "{json} within {max}");
        }
    }
}
