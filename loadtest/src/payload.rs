//! What is published: payloads that carry their number, the time they were due, and padding that shows a tear.
//!
//! `{"n":17,"t":81234567890,"c":3,"k":"k12","type":"tick","pad":"rrr…"}`: `n` counts the updates of one stream from 1,
//! `t` is the due time in nanoseconds of [`crate::sys::now_ns`], `c` the channel, `k` the key. A channel has a stream
//! for each key, and one more for goals.

const NUMBER: &[u8] = b"{\"n\":";
const TIME: &[u8] = b",\"t\":";
const CHANNEL: &[u8] = b",\"c\":";
const KEY: &[u8] = b",\"k\":\"k";
const TICK: &[u8] = b"\",\"type\":\"tick\",\"pad\":\"";
const GOAL: &[u8] = b"\",\"type\":\"goal\",\"pad\":\"";
const END: &[u8] = b"\"}";
/// One payload in this many is compared byte by byte, the others at both ends.
const SAMPLE: u32 = 16;
const ENDS: usize = 8;

/// The smallest payload that can be asked for: the largest numbers fit.
pub const BYTES_MIN: usize = 128;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Number within its stream, from 1.
    pub n: u32,
    /// When it was due, in nanoseconds.
    pub due_ns: u64,
    /// Its channel.
    pub channel: u32,
    /// Its key.
    pub key: u32,
    /// Whether it is a goal, which nobody may miss.
    pub goal: bool,
}

impl Payload {
    /// Writes it as exactly `bytes` bytes (at least [`BYTES_MIN`]) to the end of `into`.
    pub fn write(&self, bytes: usize, into: &mut Vec<u8>) {
        let start = into.len();
        let mut number = |name: &[u8], value: u64| {
            into.extend_from_slice(name);
            into.extend_from_slice(value.to_string().as_bytes());
        };
        number(NUMBER, self.n.into());
        number(TIME, self.due_ns);
        number(CHANNEL, self.channel.into());
        number(KEY, self.key.into());
        into.extend_from_slice(if self.goal { GOAL } else { TICK });
        into.resize(start + bytes.max(BYTES_MIN) - END.len(), pad(self.n));
        into.extend_from_slice(END);
    }

    /// Reads one; none where it is not as it was made.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (n, rest) = number(bytes.strip_prefix(NUMBER)?)?;
        let (due_ns, rest) = number(rest.strip_prefix(TIME)?)?;
        let (channel, rest) = number(rest.strip_prefix(CHANNEL)?)?;
        let (key, rest) = number(rest.strip_prefix(KEY)?)?;
        let (goal, rest) = match rest.strip_prefix(TICK) {
            Some(rest) => (false, rest),
            None => (true, rest.strip_prefix(GOAL)?),
        };
        let (padding, n) = (rest.strip_suffix(END)?, u32::try_from(n).ok()?);
        let (channel, key) = (u32::try_from(channel).ok()?, u32::try_from(key).ok()?);
        let whole = |bytes: &[u8]| bytes.iter().all(|byte| *byte == pad(n));
        let sound = if padding.len() <= 2 * ENDS || n.is_multiple_of(SAMPLE) {
            whole(padding)
        } else {
            whole(&padding[..ENDS]) && whole(&padding[padding.len() - ENDS..])
        };
        sound.then_some(Self { n, due_ns, channel, key, goal })
    }
}

/// Neighbouring payloads differ in every byte of their padding.
fn pad(n: u32) -> u8 {
    b'a' + (n % 26) as u8
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = bytes.split_at(digits);
    if number.is_empty() || number.len() > 20 {
        return None;
    }
    let value = number.iter().try_fold(0u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))?;
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_reads_as_it_was_written() {
        for (payload, bytes) in [
            (Payload { n: 1, due_ns: 0, channel: 0, key: 0, goal: false }, BYTES_MIN),
            (Payload { n: 33, due_ns: 81_234_567_890, channel: 19_999, key: 999, goal: true }, 512),
            (Payload { n: u32::MAX, due_ns: u64::MAX, channel: u32::MAX, key: u32::MAX, goal: false }, BYTES_MIN),
        ] {
            let mut written = Vec::new();
            payload.write(bytes, &mut written);
            assert_eq!((written.len(), Payload::read(&written)), (bytes, Some(payload)));
            assert!(serde_json::from_slice::<serde_json::Value>(&written).is_ok());
        }
    }

    #[test]
    fn a_torn_payload_is_found() {
        let mut whole = Vec::new();
        Payload { n: 32, due_ns: 5, channel: 1, key: 2, goal: false }.write(300, &mut whole);
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 0x80;
            assert_eq!(Payload::read(&torn), None, "byte {at}");
            assert_eq!(Payload::read(&whole[..at]), None, "cut at {at}");
        }
    }
}
