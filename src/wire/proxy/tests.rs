//! Headers as proxies send them, as the specification forbids them, and cut at every byte.

use super::*;
use proptest::prelude::*;

/// Read from HAProxy 2.6.12 in its server's place: `send-proxy-v2-ssl-cn proxy-v2-options
/// ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority,crc32c,unique-id` for a client at 127.0.0.2:44362 over TLS 1.3.
const HAPROXY_TLS: &str = "0d0a0d0a000d0a515549540a2111009b7f0000027f000001ad4a4bf303000499ebe74f01000868747470\
     2f312e3102000c676174652e6578616d706c6505002434386435643531372d376633372d343064382d393836312d32663937643533626564\
     35612000440100000000210007544c5376312e33250005454332353624001165636473612d776974682d534841323536230016544c535f41\
     45535f3235365f47434d5f534841333834";
/// The same server's health check.
const HAPROXY_CHECK: &str = "0d0a0d0a000d0a515549540a2000000f030004889da1df2000050000000000";
/// `send-proxy-v2` for a client at [::1]:50468.
const HAPROXY_V6: &str = "0d0a0d0a000d0a515549540a21210024000000000000000000000000000000010000000000000000000000\
     0000000001c5244bf5";

/// 192.0.2.1:5000 to 192.0.2.2:80.
const V4: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x13, 0x88, 0, 80];

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [&SIGNATURE[..], &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    [&[kind], &(value.len() as u16).to_be_bytes()[..], value].concat()
}

fn v4(extensions: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&V4, extensions].concat())
}

/// A header whose checksum is right, between some extensions and others.
fn summed(before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut header = v4(&[before, &tlv(TLV_CRC32C, &[0; 4]), after].concat());
    let (sum, end) = (crc32c::crc32c(&header), header.len() - after.len());
    header[end - 4..end].copy_from_slice(&sum.to_be_bytes());
    header
}

fn client(address: &str) -> Introduced {
    Introduced::Client(address.parse().unwrap())
}

/// What a header says, of which every part is incomplete, and behind which the client's bytes begin.
fn said(header: &[u8]) -> Introduced {
    let (introduced, len) = parse(&[header, b"GET /\r\n"].concat()).unwrap().expect("a whole header");
    assert_eq!((len, parse(header)), (header.len(), Ok(Some((introduced, len)))));
    (0..len).for_each(|cut| assert_eq!(parse(&header[..cut]), Ok(None), "cut at {cut}"));
    introduced
}

#[test]
fn what_haproxy_sends_is_read_to_its_last_byte() {
    assert_eq!(said(&bytes(HAPROXY_TLS)), client("127.0.0.2:44362"));
    assert_eq!(said(&bytes(HAPROXY_CHECK)), Introduced::Proxy);
    assert_eq!(said(&bytes(HAPROXY_V6)), client("[::1]:50468"));
    assert_eq!(said(b"PROXY TCP4 127.0.0.2 127.0.0.1 44363 19444\r\n"), client("127.0.0.2:44363"));
}

#[test]
fn no_byte_of_a_header_with_a_checksum_can_be_another() {
    let header = bytes(HAPROXY_TLS);
    // But for the type of the checksum: one of another type is none.
    let kind = V2_FIXED_BYTES + V4.len();
    assert_eq!(header[kind], TLV_CRC32C);
    for at in (0..header.len()).filter(|at| *at != kind) {
        for bit in 0..8 {
            let mut changed = header.clone();
            changed[at] ^= 1 << bit;
            match parse(&changed) {
                // LOCAL, and UNSPEC: nothing is believed of them. A length that grows: more is awaited.
                Ok(Some((Introduced::Proxy | Introduced::Nobody, _)) | None) => assert!((12..16).contains(&at)),
                Ok(Some((introduced, _))) => panic!("byte {at}, bit {bit}: {introduced:?}"),
                Err(_) => {}
            }
        }
    }
}

#[test]
fn a_line_says_for_whom_it_is() {
    for (line, introduced) in [
        ("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n", client("255.255.255.255:65535")),
        ("PROXY TCP6 2001:db8::1 ::1 1 2\r\n", client("[2001:db8::1]:1")),
        ("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n", client("192.0.2.7:1")),
        ("PROXY UNKNOWN\r\n", Introduced::Nobody),
        ("PROXY UNKNOWN ffff::1 what ever\r\n", Introduced::Nobody),
    ] {
        assert_eq!(said(line.as_bytes()), introduced, "{line}");
    }
    let longest = "ffff:f...f:ffff".replace("f...f", "ffff:ffff:ffff:ffff:ffff:ffff");
    let unknown = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    assert_eq!(unknown.len(), V1_BYTES_MAX, "the longest line, from section 2.1");
    assert_eq!(said(unknown.as_bytes()), Introduced::Nobody);
}

#[test]
fn a_line_that_is_not_exact_is_refused() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(V1_BYTES_MAX));
    for (line, fault) in [
        ("GET / HTTP/1.1\r\n", Fault::Missing),
        ("proxy TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Fault::Missing),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", Fault::Line),
        (&long, Fault::Line),
        ("PROXY  TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Fault::LineProtocol),
        ("PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Fault::LineProtocol),
        ("PROXY \r\n", Fault::LineProtocol),
        ("PROXY TCP4\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Fault::LineAddresses),
        ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", Fault::LineAddresses),
    ] {
        assert_eq!(parse(line.as_bytes()), Err(fault), "{line:?}");
    }
    assert_eq!(parse(&long.as_bytes()[..V1_BYTES_MAX]), Err(Fault::Line), "no more is awaited");
}

#[test]
fn what_has_no_address_for_us_keeps_the_sockets() {
    for (header, introduced) in [
        (v2(0x20, 0x00, b""), Introduced::Proxy),
        (v2(0x20, 0x11, &V4), Introduced::Proxy),
        (v2(0x20, 0xff, b"whatever it is"), Introduced::Proxy),
        (v2(0x21, 0x00, b""), Introduced::Nobody),
        (v2(0x21, 0x00, b"some address"), Introduced::Nobody),
        (v2(0x21, 0x31, &[0; 216]), Introduced::Nobody),
        (v2(0x21, 0x32, &[&[7; 216], &tlv(4, b"")[..]].concat()), Introduced::Nobody),
        (v2(0x21, 0x12, &V4), client("192.0.2.1:5000")),
        (v2(0x21, 0x22, &[0; 36]), client("[::]:0")),
    ] {
        assert_eq!(said(&header), introduced, "{header:?}");
    }
    let mapped: [u8; 16] = Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets();
    let body = [&mapped[..], &[0; 16], &[0, 9, 0, 9]].concat();
    assert_eq!(said(&v2(0x21, 0x21, &body)), client("192.0.2.7:9"));
}

#[test]
fn extensions_that_mean_nothing_to_us_are_skipped_and_all_are_measured() {
    let ssl = |nested: &[u8]| tlv(TLV_SSL, &[&[1, 0, 0, 0, 0], nested].concat());
    for extensions in [
        tlv(0x04, b""),                           // NOOP
        tlv(0x04, &[0; 3000]),                    //
        tlv(0xea, b"\x01vpce-08d2bf15fac5001c9"), // AWS
        tlv(0xee, &[1, 1, 2, 3, 4]),              // Azure
        tlv(0xff, b"what is to come"),
        ssl(b""),
        ssl(&[tlv(0x21, b"TLSv1.3"), tlv(0x22, "é".as_bytes())].concat()),
    ] {
        assert_eq!(said(&v4(&extensions)), client("192.0.2.1:5000"));
        assert_eq!(said(&summed(&extensions, b"")), client("192.0.2.1:5000"));
        assert_eq!(said(&summed(b"", &extensions)), client("192.0.2.1:5000"));
    }
    for (extensions, fault) in [
        (vec![4], Fault::Extension(4)),
        (vec![4, 0], Fault::Extension(4)),
        (vec![4, 0, 1], Fault::Extension(4)),
        (vec![0xea, 0xff, 0xff, 1], Fault::Extension(0xea)),
        (tlv(TLV_SSL, &[1, 0, 0, 0]), Fault::Extension(TLV_SSL)),
        (ssl(&[0x21]), Fault::Extension(0x21)),
        (ssl(&[0x21, 0, 9, b'T']), Fault::Extension(0x21)),
        (tlv(TLV_CRC32C, &[0; 3]), Fault::Extension(TLV_CRC32C)),
        (tlv(TLV_CRC32C, &[0; 4]), Fault::Checksum),
    ] {
        assert_eq!(parse(&v4(&extensions)), Err(fault), "{extensions:?}");
    }
    assert_eq!(parse(&summed(b"", &tlv(TLV_CRC32C, &[0; 4]))), Err(Fault::Checksum), "a second one");
}

#[test]
fn a_header_that_there_is_not_is_refused_as_soon_as_it_shows() {
    let mut start = SIGNATURE.to_vec();
    for (byte, fault) in [(0x22, Fault::Command(0x22)), (0x11, Fault::Command(0x11)), (0x00, Fault::Command(0))] {
        assert_eq!(parse(&[&start[..], &[byte]].concat()), Err(fault));
    }
    start.extend([0x21, 0x11]);
    let length = |length: usize| [&start[..], &(length as u16).to_be_bytes()].concat();
    assert_eq!(parse(&length(V2_BYTES_MAX - 15)), Err(Fault::TooLong(V2_BYTES_MAX + 1)));
    assert_eq!(parse(&length(V2_BYTES_MAX - 16)), Ok(None));
    for family in [0x01, 0x10, 0x13, 0x20, 0x41, 0xf1] {
        assert_eq!(parse(&v2(0x21, family, &V4)), Err(Fault::Family(family)));
    }
    for (family, addresses) in [(0x11, 12), (0x21, 36), (0x31, 216)] {
        for short in [0, 4, addresses - 1] {
            assert_eq!(parse(&v2(0x21, family, &vec![0; short])), Err(Fault::Addresses));
        }
    }
    assert_eq!(parse(b"\r\n\r\n\0\r\nQUIT\r"), Err(Fault::Missing));
    assert_eq!(parse(b"\r\nG"), Err(Fault::Missing));
}

#[test]
fn a_header_where_a_request_belongs_is_known_for_one() {
    for header in [bytes(HAPROXY_CHECK), b"PROXY TCP4 1.2.3.4".to_vec(), b"PROXY UNKNOWN\r\n".to_vec()] {
        assert!(is_header(&header));
    }
    assert!(is_header(&SIGNATURE[..5]), "no HTTP goes on like this");
    for request in ["", "\r\n\r\n", "\r\n\r\nGET / HTTP/1.1", "PROXY", "PROXY / HTTP/1.1", "GET / HTTP/1.1"] {
        assert!(!is_header(request.as_bytes()), "{request:?}");
    }
}

proptest! {
    /// Whatever comes, nothing panics, nothing is believed beyond its end, and more bytes change no verdict.
    #[test]
    fn a_verdict_stands_whatever_follows(
        start in prop_oneof![Just(b"".to_vec()), Just(b"PROXY TCP4 ".to_vec()), Just(b"PROXY TCP6 ".to_vec()), Just(SIGNATURE.to_vec())],
        middle in prop_oneof![Just(vec![]), Just(vec![0x21, 0x11, 0, 20]), Just(vec![0x21, 0x21, 0, 60]), Just(vec![0x20, 0, 0, 9])],
        rest in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(3), Just(0x20), Just(b'\r'), Just(b'\n')], 0..120),
    ) {
        let all = [start, middle, rest].concat();
        let mut before = Ok(None);
        for cut in 0..=all.len() {
            let verdict = parse(&all[..cut]);
            prop_assert!(before == Ok(None) || verdict == before, "{:?} was taken back for {:?}", before, verdict);
            if let Ok(Some((_, len))) = verdict {
                prop_assert!(len <= cut && len <= V2_BYTES_MAX);
            }
            before = verdict;
        }
    }

    /// Any addresses and extensions, with a checksum or without, are read back.
    #[test]
    fn what_was_written_is_read(
        source in any::<[u8; 16]>(),
        port in any::<u16>(),
        six in any::<bool>(),
        extensions in prop::collection::vec((4..=0xff_u8, prop::collection::vec(any::<u8>(), 0..50)), 0..6),
        checksum in prop::option::of(0..6_usize),
    ) {
        let mut extensions: Vec<_> =
            extensions.iter().filter(|(kind, _)| *kind != TLV_SSL).map(|(kind, value)| tlv(*kind, value)).collect();
        let at = checksum.map(|at| at.min(extensions.len()));
        if let Some(at) = at {
            extensions.insert(at, tlv(TLV_CRC32C, &[0; 4]));
        }
        let width = if six { 16 } else { 4 };
        let body = [&source[..width], &vec![9; width], &port.to_be_bytes(), &[0, 80], &extensions.concat()].concat();
        let mut header = v2(0x21, if six { 0x21 } else { 0x11 }, &body);
        if let Some(at) = at {
            let place = V2_FIXED_BYTES + 2 * width + 4 + extensions[..at].concat().len() + TLV_HEAD_BYTES;
            let sum = crc32c::crc32c(&header).to_be_bytes();
            header[place..place + 4].copy_from_slice(&sum);
        }
        let four: [u8; 4] = [source[0], source[1], source[2], source[3]];
        let ip = if six { std::net::IpAddr::from(source).to_canonical() } else { four.into() };
        prop_assert_eq!(said(&header), Introduced::Client(SocketAddr::new(ip, port)));
    }
}
