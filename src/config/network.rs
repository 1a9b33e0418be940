//! Networks as they are written in settings: `10.0.0.0/8`, or one address.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Some addresses that have their first bits in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network: write one, as in `10.0.0.0/8` or `2001:db8::/32`, or an address without a port")]
pub struct BadNetwork(String);

impl Network {
    /// Whether an address is in it. An IPv4 address is the same one where it comes mapped into IPv6 (`::ffff:10.0.0.7`),
    /// as sockets that listen for both families have it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it is wider than any private network (10.0.0.0/8, fc00::/7), as `0.0.0.0/0` is: others are in it.
    pub fn is_wide(&self) -> bool {
        match self.0 {
            IpNet::V4(network) => network.prefix_len() < 8,
            IpNet::V6(network) => network.prefix_len() < 7,
        }
    }
}

impl FromStr for Network {
    type Err = BadNetwork;

    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let network =
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(|one| IpNet::from(one.to_canonical())));
        let bad = || BadNetwork(text.to_owned());
        match network.map_err(|_| bad())? {
            // Of these, an address that is looked for in its IPv4 form would never be found.
            IpNet::V6(mapped) if mapped.addr().to_ipv4_mapped().is_some() => Err(bad()),
            network => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_a_network_by_its_first_bits_however_it_comes() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.9.9.9", "1.10.0.0"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.8"),
            ("10.0.0.7", "::ffff:10.0.0.7", "::10.0.0.7"),
            ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.6"),
            ("2001:db8::/32", "2001:db8:1::1", "2001:db9::1"),
            ("::1", "::1", "127.0.0.1"),
            ("0.0.0.0/0", "::ffff:1.2.3.4", "::1"),
            ("::/0", "::1", "1.2.3.4"),
        ] {
            assert!(network(text).contains(inside.parse().unwrap()), "{inside} in {text}");
            assert!(!network(text).contains(outside.parse().unwrap()), "{outside} in {text}");
        }
    }

    #[test]
    fn what_no_private_network_is_as_wide_as_is_wide() {
        for (text, wide) in
            [("0.0.0.0/0", true), ("128.0.0.0/1", true), ("10.0.0.0/8", false), ("::/0", true), ("fc00::/7", false)]
        {
            assert_eq!(network(text).is_wide(), wide, "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_again() {
        for text in ["10.0.0.0/8", "10.0.0.7/32", "2001:db8::/32"] {
            assert_eq!(network(text).to_string(), text);
        }
        assert_eq!(network("10.0.0.7").to_string(), "10.0.0.7/32");
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_one_looks_like() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "10.0.0.1:80", "localhost", "::ffff:10.0.0.0/104", "10.0.0.0/-1"] {
            let refused = text.parse::<Network>().unwrap_err().to_string();
            assert!(refused.starts_with(&format!("`{text}` is no network: write one")), "{refused}");
        }
    }
}
