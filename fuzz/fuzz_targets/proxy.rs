//! A verdict on a PROXY header stands whatever follows; what was written is read back, and one with a checksum is believed
//! only as long as no bit of its addresses is another.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spillgate::wire::proxy::{Fault, Introduced, V2_BYTES_MAX, is_header, parse};
use std::net::IpAddr;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const CHECKSUM: u8 = 0x03;
const SSL: u8 = 0x20;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    raw: &'a [u8],
    source: [u8; 16],
    port: u16,
    six: bool,
    extensions: Vec<(u8, &'a [u8])>,
    flip: u16,
}

fuzz_target!(|input: Input<'_>| {
    let raw = input.raw;
    check(raw);
    check(&[b"PROXY TCP4 ", raw].concat());
    check(&[b"PROXY TCP6 ", raw].concat());
    check(&[SIGNATURE, raw].concat());
    for family in [0x11, 0x21, 0x31] {
        let length = (raw.len().min(usize::from(u16::MAX)) as u16).to_be_bytes();
        check(&[SIGNATURE, &[0x21, family], &length, raw].concat());
    }
    check_written(&input);
});

fn check(bytes: &[u8]) {
    let mut before = Ok(None);
    for cut in 0..=bytes.len() {
        let verdict = parse(&bytes[..cut]);
        assert!(before == Ok(None) || verdict == before, "{before:?} was taken back for {verdict:?}");
        match verdict {
            Ok(Some((_, len))) => assert!(len <= cut && len <= V2_BYTES_MAX && is_header(bytes)),
            Ok(None) => assert!(cut < V2_BYTES_MAX, "a longer one is awaited"),
            Err(_) => {}
        }
        before = verdict;
    }
}

fn check_written(input: &Input<'_>) {
    let width = if input.six { 16 } else { 4 };
    let mut body = [&input.source[..width], &[7; 16][..width], &input.port.to_be_bytes(), &[0, 80]].concat();
    for (kind, value) in input.extensions.iter().filter(|(kind, _)| ![CHECKSUM, SSL].contains(kind)) {
        body.push(*kind);
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(&value[..usize::from(value.len() as u16)]);
    }
    body.extend([CHECKSUM, 0, 4, 0, 0, 0, 0]);
    let Ok(length) = u16::try_from(body.len()) else { return };
    let family = if input.six { 0x21 } else { 0x11 };
    let mut header = [SIGNATURE, &[0x21, family], &length.to_be_bytes(), &body].concat();
    let (sum, end) = (crc32c::crc32c(&header), header.len());
    header[end - 4..].copy_from_slice(&sum.to_be_bytes());
    if end > V2_BYTES_MAX {
        assert_eq!(parse(&header), Err(Fault::TooLong(end)));
        return;
    }
    let ip = match input.six {
        true => IpAddr::from(input.source).to_canonical(),
        false => IpAddr::from([input.source[0], input.source[1], input.source[2], input.source[3]]),
    };
    assert_eq!(parse(&header), Ok(Some((Introduced::Client((ip, input.port).into()), end))));
    let bit = usize::from(input.flip) % (8 * (2 * width + 4));
    header[16 + bit / 8] ^= 1 << (bit % 8);
    assert_eq!(parse(&header), Err(Fault::Checksum));
}
