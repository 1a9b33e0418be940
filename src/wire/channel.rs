//! Which names a channel may have: the one place that says so, for requests and commands alike.

use super::encode::cut;
use crate::config::Limits;

/// What is wrong with a channel's name; its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelFault {
    /// There is no name.
    #[error("a channel's name is empty: name one, for example scores")]
    Empty,
    /// The name has more bytes than the settings allow.
    #[error("the channel name {name:?}… has {bytes} bytes: use at most {bytes_max}")]
    TooLong {
        /// How the name starts.
        name: Box<str>,
        /// Bytes of the name.
        bytes: usize,
        /// Bytes that a name may have: `channel_name_bytes_max`.
        bytes_max: usize,
    },
    /// The name holds a control character, which no log and no Redis tool shows.
    #[error("the channel name {name:?} holds a control character: use printable ones")]
    Control {
        /// The name.
        name: Box<str>,
    },
}

/// Bytes of a name that is too long which are shown to whoever sent it.
const SHOWN_BYTES_MAX: usize = 40;

/// Says whether `name` may name a channel: not empty, at most `limits.channel_name_bytes_max` bytes, no control
/// characters.
///
/// # Errors
/// The first thing that is wrong with the name.
pub fn check_channel(name: &str, limits: &Limits) -> Result<(), ChannelFault> {
    let bytes_max = limits.channel_name_bytes_max;
    if name.is_empty() {
        return Err(ChannelFault::Empty);
    }
    if name.len() > bytes_max {
        return Err(ChannelFault::TooLong { name: cut(name, SHOWN_BYTES_MAX).into(), bytes: name.len(), bytes_max });
    }
    if name.chars().any(char::is_control) {
        return Err(ChannelFault::Control { name: name.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_for_being_empty_too_long_or_unprintable_only() {
        let limits = Limits { channel_name_bytes_max: 8, ..Limits::default() };
        for good in ["a", "a/b:c", "é é", "12345678", "{x},\"'", "💧💧"] {
            assert_eq!(check_channel(good, &limits), Ok(()), "{good}");
        }
        assert_eq!(check_channel("", &limits), Err(ChannelFault::Empty));
        assert!(matches!(
            check_channel("123456789", &limits),
            Err(ChannelFault::TooLong { bytes: 9, bytes_max: 8, .. })
        ));
        for bad in ["a\0", "\n", "a\u{7f}", "\u{85}"] {
            assert!(matches!(check_channel(bad, &limits), Err(ChannelFault::Control { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_fault_shows_a_name_escaped_and_cut() {
        let limits = Limits::default();
        let long = check_channel(&"é".repeat(500), &limits).unwrap_err().to_string();
        assert!(long.contains("1000 bytes") && long.len() < 120, "{long}");
        let control = check_channel("a\r\nb", &limits).unwrap_err().to_string();
        assert!(control.contains(r"a\r\nb"), "{control}");
    }
}
