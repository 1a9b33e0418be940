//! The PROXY protocol, versions 1 and 2: a proxy's word, at the start of a connection, for whom it passes the rest on.
//!
//! Every number and rule is of <https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt> (section 2).
//!
//! Promise: no allocation, and no header is believed of which a part is wrong: its addresses, its extensions' lengths and,
//! where it has one, its checksum. Whose word is taken at all is for the caller to say.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// What version 2 begins with: nothing that a person or an HTTP client would send.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const V1_START: &[u8] = b"PROXY ";
/// Bytes of a line of version 1, its end included.
const V1_BYTES_MAX: usize = 107;
/// Signature, version and command, family, length.
const V2_FIXED_BYTES: usize = 16;
/// Bytes of a whole header of version 2. The protocol allows 64 KiB; addresses, and the extensions that HAProxy, Envoy and
/// AWS send, take some hundred, and one with a whole client certificate's name is far below this.
pub const V2_BYTES_MAX: usize = 4 << 10;
/// Type and length of an extension, before its value.
const TLV_HEAD_BYTES: usize = 3;
const TLV_CRC32C: u8 = 0x03;
const TLV_SSL: u8 = 0x20;
/// Client's flags and the result of the verification, before what is nested.
const SSL_FIXED_BYTES: usize = 5;

/// For whom a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introduced {
    /// For this client. An IPv4 address that came as an IPv6 one is an IPv4 one again.
    Client(SocketAddr),
    /// For somebody without an address that means anything to us (UNKNOWN, UNSPEC, a Unix socket): the socket's holds.
    Nobody,
    /// For the proxy itself, which mostly wants to know whether we are here (LOCAL): the socket's address holds.
    Proxy,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// These bytes begin none.
    #[error("there is no PROXY header")]
    Missing,
    /// Version 1: no end of line where one must be, or not the bytes of one.
    #[error("a PROXY line of version 1 must end with CR LF within {V1_BYTES_MAX} bytes")]
    Line,
    /// Version 1: neither TCP4, TCP6 nor UNKNOWN.
    #[error("a PROXY line names TCP4, TCP6 or UNKNOWN")]
    LineProtocol,
    /// Version 1: its addresses or ports.
    #[error("a PROXY line has two addresses of its family and two ports, one space between")]
    LineAddresses,
    /// Version 2: a version or a command that there is not.
    #[error("version and command of a PROXY header are {0:#04x}; there are 0x20 and 0x21")]
    Command(u8),
    /// Version 2: a family or a transport that there is not.
    #[error("family and transport of a PROXY header are {0:#04x}, which means nothing")]
    Family(u8),
    /// Version 2: over [`V2_BYTES_MAX`].
    #[error("a PROXY header has {0} bytes, and {V2_BYTES_MAX} are the most that are taken")]
    TooLong(usize),
    /// Version 2: shorter than the addresses of its family.
    #[error("a PROXY header is shorter than its addresses")]
    Addresses,
    /// Version 2: an extension that runs over the end of what holds it, or is of a length that its type has not.
    #[error("an extension of a PROXY header, of type {0:#04x}, has a wrong length")]
    Extension(u8),
    /// Version 2: not the checksum of these bytes, or a second one.
    #[error("the checksum of a PROXY header does not hold")]
    Checksum,
}

/// Reads the header at the start of a connection: `None` while it is incomplete (the caller bounds the time; it is never
/// longer than [`V2_BYTES_MAX`]), else what it says and its length, in bytes, behind which the client's own begin.
///
/// # Errors
/// Why it is no header that can be believed; as soon as that is sure.
pub fn parse(bytes: &[u8]) -> Result<Option<(Introduced, usize)>, Fault> {
    if begins(bytes, V1_START) {
        return parse_v1(bytes);
    }
    if begins(bytes, SIGNATURE) { parse_v2(bytes) } else { Err(Fault::Missing) }
}

/// Whether a request that cannot be read is a PROXY header, or so much of one that nothing else begins like it.
pub fn is_header(bytes: &[u8]) -> bool {
    let protocols = [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    // From its zero byte on a signature is no HTTP.
    protocols.iter().any(|start| bytes.starts_with(start)) || (bytes.len() > 4 && begins(bytes, SIGNATURE))
}

/// Whether `bytes` begin with `start`, as far as there are any.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let both = bytes.len().min(start.len());
    bytes[..both] == start[..both]
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Introduced, usize)>, Fault> {
    let head = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = head.iter().position(|byte| *byte == b'\n') else {
        return if head.len() < V1_BYTES_MAX { Ok(None) } else { Err(Fault::Line) };
    };
    let line = head[..end].strip_suffix(b"\r").ok_or(Fault::Line)?;
    let line = line.strip_prefix(V1_START).ok_or(Fault::Line)?;
    let (protocol, rest) = match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (&line[..at], &line[at + 1..]),
        None => (line, &line[line.len()..]),
    };
    let introduced = match protocol {
        b"UNKNOWN" => Introduced::Nobody, // whatever follows
        b"TCP4" => Introduced::Client(v1_source::<Ipv4Addr>(rest).ok_or(Fault::LineAddresses)?),
        b"TCP6" => Introduced::Client(v1_source::<Ipv6Addr>(rest).ok_or(Fault::LineAddresses)?),
        _ => return Err(Fault::LineProtocol),
    };
    Ok(Some((introduced, end + 1)))
}

/// The source of `source destination source-port destination-port`, all four of which must be right.
fn v1_source<A: std::str::FromStr + Into<std::net::IpAddr>>(rest: &[u8]) -> Option<SocketAddr> {
    let mut words = std::str::from_utf8(rest).ok()?.split(' ');
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let source_port = v1_port(words.next()?)?;
    let _destination_port = v1_port(words.next()?)?;
    words.next().is_none().then(|| SocketAddr::new(source.into().to_canonical(), source_port))
}

/// A port in decimal, without a sign or leading zeros.
fn v1_port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Introduced, usize)>, Fault> {
    let local = match bytes.get(12) {
        Some(0x20) => true,
        Some(0x21) => false,
        Some(other) => return Err(Fault::Command(*other)),
        None => return Ok(None),
    };
    let Some(fixed) = bytes.first_chunk::<V2_FIXED_BYTES>() else { return Ok(None) };
    let end = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if end > V2_BYTES_MAX {
        return Err(Fault::TooLong(end));
    }
    let Some(header) = bytes.get(..end) else { return Ok(None) };
    if local {
        return Ok(Some((Introduced::Proxy, end))); // the rest, its family included, is to be discarded
    }
    let body = &header[V2_FIXED_BYTES..];
    let (introduced, addresses) = match fixed[13] {
        // Nobody says where its addresses end, so its extensions cannot be found.
        0x00 => return Ok(Some((Introduced::Nobody, end))),
        // A datagram's too: a proxy may take QUIC from the client and speak TCP to us.
        0x11 | 0x12 => (v2_source::<4>(body), 12),
        0x21 | 0x22 => (v2_source::<16>(body), 36),
        0x31 | 0x32 => (Some(Introduced::Nobody), 216),
        other => return Err(Fault::Family(other)),
    };
    let introduced = introduced.filter(|_| body.len() >= addresses).ok_or(Fault::Addresses)?;
    check_extensions(header, V2_FIXED_BYTES + addresses)?;
    Ok(Some((introduced, end)))
}

/// The source of two addresses of `N` bytes, followed by two ports.
fn v2_source<const N: usize>(body: &[u8]) -> Option<Introduced>
where
    std::net::IpAddr: From<[u8; N]>,
{
    let address = std::net::IpAddr::from(*body.first_chunk::<N>()?).to_canonical();
    let port = u16::from_be_bytes(*body.get(2 * N..)?.first_chunk()?);
    Some(Introduced::Client(SocketAddr::new(address, port)))
}

/// Looks at all extensions from `at` on. What is of a type that means nothing to us (AWS's 0xEA among them) is skipped.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), Fault> {
    let mut checksum = None;
    while at < header.len() {
        let (kind, value) = extension(header, at)?;
        at = value.end;
        match kind {
            TLV_CRC32C if value.len() != 4 => return Err(Fault::Extension(kind)),
            TLV_CRC32C if checksum.is_some() => return Err(Fault::Checksum),
            TLV_CRC32C => checksum = Some(value),
            TLV_SSL => check_ssl(&header[value])?,
            _ => {}
        }
    }
    checksum.map_or(Ok(()), |place| check_sum(header, place))
}

/// The type of the extension at `at`, and where its value lies.
fn extension(bytes: &[u8], at: usize) -> Result<(u8, Range<usize>), Fault> {
    let kind = bytes[at];
    let Some(&[high, low]) = bytes.get(at + 1..at + TLV_HEAD_BYTES) else { return Err(Fault::Extension(kind)) };
    let start = at + TLV_HEAD_BYTES;
    let end = start + usize::from(u16::from_be_bytes([high, low]));
    if end > bytes.len() { Err(Fault::Extension(kind)) } else { Ok((kind, start..end)) }
}

/// What is nested in the one about TLS must fit into it.
fn check_ssl(value: &[u8]) -> Result<(), Fault> {
    let mut at = SSL_FIXED_BYTES;
    if value.len() < at {
        return Err(Fault::Extension(TLV_SSL));
    }
    while at < value.len() {
        at = extension(value, at)?.1.end;
    }
    Ok(())
}

/// The checksum is that of the whole header with zeros in the checksum's place.
fn check_sum(header: &[u8], place: Range<usize>) -> Result<(), Fault> {
    let said = &header[place.clone()];
    let sum = crc32c::crc32c(&header[..place.start]);
    let sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &[0; 4]), &header[place.end..]);
    if said == sum.to_be_bytes() { Ok(()) } else { Err(Fault::Checksum) }
}

#[cfg(test)]
mod tests;
