//! How clients come: by themselves, or passed on by proxies, of which some are trusted and some say what is not true.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Where the trusted proxies are.
pub const TRUSTED: [&str; 2] = ["10.0.0.0/8", "2001:db8:1::/48"];

/// One of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Without a proxy.
    Direct,
    /// By a trusted proxy, which says for whom.
    Proxied,
    /// The trusted proxy itself, which wants something (LOCAL).
    Local,
    /// The trusted proxy itself, which goes as soon as it was here.
    Check,
    /// From a trusted address, without a header.
    Unannounced,
    /// From a trusted address, with a header that does not hold.
    Broken,
    /// From anywhere else, with a header.
    Forged,
}

impl Way {
    pub fn draw(rng: &mut fastrand::Rng) -> Self {
        match rng.u8(..) {
            0..120 => Way::Direct,
            120..220 => Way::Proxied,
            220..228 => Way::Local,
            228..234 => Way::Check,
            234..240 => Way::Unannounced,
            240..248 => Way::Broken,
            248.. => Way::Forged,
        }
    }

    /// Whether its request is taken in.
    pub fn is_welcome(self) -> bool {
        matches!(self, Way::Direct | Way::Proxied | Way::Local | Way::Check)
    }

    /// The address of whoever connects.
    pub fn peer(self, rng: &mut fastrand::Rng) -> SocketAddr {
        let trusted = !matches!(self, Way::Direct | Way::Forged);
        let ip: IpAddr = match rng.u8(..3) {
            0 => [if trusted { 10 } else { 11 }, 0, 0, rng.u8(..)].into(),
            1 => IpAddr::from([if trusted { 10 } else { 9 }, 255, rng.u8(..), 255]),
            _ => Ipv6Addr::new(0x2001, 0xdb8, if trusted { 1 } else { 2 }, 0, 0, 0, 0, rng.u16(..)).into(),
        };
        let mapped = match ip {
            IpAddr::V4(ip) if rng.bool() => ip.to_ipv6_mapped().into(), // as at a socket that listens for both
            ip => ip,
        };
        (mapped, rng.u16(..)).into()
    }

    /// What its connection begins with.
    pub fn header(self, rng: &mut fastrand::Rng) -> Vec<u8> {
        match self {
            Way::Direct | Way::Unannounced => Vec::new(),
            Way::Proxied | Way::Forged => match rng.u8(..4) {
                0 => b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 443\r\n".to_vec(),
                1 => b"PROXY UNKNOWN\r\n".to_vec(),
                _ => v2(rng, 0x21),
            },
            Way::Local | Way::Check => v2(rng, 0x20),
            Way::Broken => match rng.u8(..3) {
                0 => b"PROXY TCP4 192.0.2.7 192.0.2.8 5000 443 \r\n".to_vec(),
                1 => v2(rng, 0x21 + 1),
                _ => {
                    let mut header = v2(rng, 0x21);
                    let at = rng.usize(16..28); // in its addresses: its checksum tells
                    header[at] ^= 1 << rng.u8(..8);
                    header
                }
            },
        }
    }
}

/// A header of version 2 with addresses, an extension that means nothing, and a checksum at its end.
fn v2(rng: &mut fastrand::Rng, command: u8) -> Vec<u8> {
    let (family, addresses) = if rng.bool() { (0x11, 12) } else { (0x21, 36) };
    let padding = rng.u8(..200);
    let mut body: Vec<u8> = (0..addresses).map(|_| rng.u8(..)).collect();
    body.extend([0x04, 0, padding]);
    body.extend(std::iter::repeat_n(0, padding.into()));
    body.extend([0x03, 0, 4, 0, 0, 0, 0]);
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, family]);
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    let (sum, end) = (crc32c::crc32c(&header), header.len());
    header[end - 4..].copy_from_slice(&sum.to_be_bytes());
    header
}
