//! The target of a request: which path, and which channels it names.
//!
//! A channel's name reads the same in a path and in a query: percent-decoded as UTF-8, and `+` is a plus (a space is
//! `%20`). A list is split at its commas before it is decoded, so `%2C` is a comma inside a name.

use super::channel::{ChannelFault, check_channel};
use super::encode::cut;
use super::refusal::Refusal;
use crate::config::Limits;

/// What a path leads to; names and lists are still encoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    Page,
    Raw { channel: String },
    Json { query: String },
}

/// Bytes of a client's own words that are shown to it again.
const SHOWN_BYTES_MAX: usize = 60;

impl Target {
    /// Reads a request's target, in origin form (`/ws?…`) or absolute form (`http://host/ws?…`, RFC 9112, 3.2).
    pub fn parse(target: &str) -> Result<Self, Refusal> {
        let uri: http::Uri = target.parse().map_err(|error| {
            Refusal::new(400, "bad_request", format!("the request's target is no URI ({error}): encode it"))
        })?;
        let path = uri.path();
        match path {
            "/" | "/index.html" if target.starts_with('/') || uri.scheme().is_some() => Ok(Self::Page),
            "/ws" => Ok(Self::Json { query: uri.query().unwrap_or("").into() }),
            _ => match path.strip_prefix("/raw/") {
                Some(channel) => Ok(Self::Raw { channel: channel.into() }),
                None => Err(not_found(path)),
            },
        }
    }
}

/// The channel that `/raw/{channel}` names; it may contain `/`.
pub fn raw_channel(encoded: &str, limits: &Limits) -> Result<Box<str>, Refusal> {
    channel(encoded, limits)
}

/// The channels that `?channels=a,b` names, each once, in order. An empty list is no channels; other parameters mean
/// nothing here.
pub fn json_channels(query: &str, limits: &Limits) -> Result<Vec<Box<str>>, Refusal> {
    let channels_max = limits.channels_per_connection_max;
    let lists = query.split('&').filter_map(|parameter| parameter.strip_prefix("channels="));
    let mut channels = Vec::new();
    for encoded in lists.filter(|list| !list.is_empty()).flat_map(|list| list.split(',')) {
        let channel = channel(encoded, limits)?;
        if channels.contains(&channel) {
            continue;
        }
        if channels.len() == channels_max {
            let what = format!("more than {channels_max} channels for one connection: name fewer, or open another");
            return Err(Refusal::new(400, "too_many_channels", what));
        }
        channels.push(channel);
    }
    Ok(channels)
}

fn channel(encoded: &str, limits: &Limits) -> Result<Box<str>, Refusal> {
    let name = percent_decoded(encoded).ok_or_else(|| {
        let shown = cut(encoded, SHOWN_BYTES_MAX);
        Refusal::new(
            400,
            "bad_channel",
            format!("the channel name {shown:?} is not percent-encoded UTF-8: encode it with encodeURIComponent"),
        )
    })?;
    check_channel(&name, limits).map_err(|fault| {
        let hint = if fault == ChannelFault::Empty { " (/raw/scores, /ws?channels=scores)" } else { "" };
        Refusal::new(400, "bad_channel", format!("{fault}{hint}"))
    })?;
    Ok(name.into_boxed_str())
}

/// `None` where a percent sign is not followed by two hexadecimal digits, or the bytes are not UTF-8.
fn percent_decoded(encoded: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => 16 * hexadecimal(bytes.next()?)? + hexadecimal(bytes.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

fn not_found(path: &str) -> Refusal {
    let shown = cut(path, SHOWN_BYTES_MAX);
    let what =
        format!("nothing at {shown:?}: there are /raw/{{channel}} and /ws?channels=a,b (WebSocket), and / in the demo");
    Refusal::new(404, "not_found", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(query: &str) -> Result<Vec<String>, String> {
        let limits = Limits { channels_per_connection_max: 3, channel_name_bytes_max: 8, ..Limits::default() };
        let channels =
            json_channels(query, &limits).map_err(|refusal| format!("{} {}", refusal.status, refusal.code))?;
        Ok(channels.into_iter().map(String::from).collect())
    }

    #[test]
    fn a_target_is_read_in_origin_and_absolute_form() {
        let raw = |channel: &str| Ok(Target::Raw { channel: channel.into() });
        let query = |query: &str| Ok(Target::Json { query: query.into() });
        assert_eq!(Target::parse("/"), Ok(Target::Page));
        assert_eq!(Target::parse("/index.html?x"), Ok(Target::Page));
        assert_eq!(Target::parse("http://host"), Ok(Target::Page));
        assert_eq!(Target::parse("/raw/a/b%2Fc?x=1"), raw("a/b%2Fc"));
        assert_eq!(Target::parse("/raw/"), raw(""));
        assert_eq!(Target::parse("/ws"), query(""));
        assert_eq!(Target::parse("http://host:80/ws?channels=a"), query("channels=a"));
        for unknown in ["/ws/", "/WS", "/raw", "//ws", "/favicon.ico", "*", "/index.htm"] {
            assert_eq!(Target::parse(unknown).map_err(|refusal| refusal.status), Err(404), "{unknown}");
        }
        for bad in ["host:80", "/a b", "ht tp://x/"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_of_channels_is_split_then_decoded_and_each_kept_once() {
        let rows: [(&str, &[&str]); 11] = [
            ("", &[]),
            ("channels=", &[]),
            ("channels", &[]),
            ("Channels=a&channelsx=b", &[]),
            ("channels=a", &["a"]),
            ("channels=a,b", &["a", "b"]),
            ("x=1&channels=b,a,b&y", &["b", "a"]),
            ("channels=a&channels=b", &["a", "b"]),
            ("channels=a%2Cb,c%26d", &["a,b", "c&d"]),
            ("channels=a+b,%2B,%20", &["a+b", "+", " "]),
            ("channels=%C3%A9,é", &["é"]),
        ];
        for (query, expected) in rows {
            assert_eq!(json(query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn a_bad_list_is_refused_for_what_is_wrong() {
        for query in ["a,", ",", "a,,b", "123456789", "%00", "%0d%0a", "%ff", "%", "%4", "%zz", "%+1", "a%C3"] {
            assert_eq!(json(&format!("channels={query}")), Err("400 bad_channel".into()), "{query}");
        }
        assert_eq!(json("channels=a,b,c,a,c").unwrap().len(), 3);
        assert_eq!(json("channels=a,b,c,d"), Err("400 too_many_channels".into()));
    }
}
