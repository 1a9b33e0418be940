//! Frames by hand, split at every byte, and random sequences of them against a plain model.

use super::*;
use proptest::prelude::*;

const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// What a sink was given, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<ClientFrame<'_>> for Event {
    fn from(frame: ClientFrame<'_>) -> Self {
        match frame {
            ClientFrame::Text(text) => Self::Text(text.into()),
            ClientFrame::Binary(bytes) => Self::Binary(bytes.into()),
            ClientFrame::Ping(bytes) => Self::Ping(bytes.into()),
            ClientFrame::Pong(bytes) => Self::Pong(bytes.into()),
            ClientFrame::Close { code, reason } => Self::Close(code, reason.into()),
        }
    }
}

/// A client's frame: the first byte as given, the shortest length, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(0x80 | length as u8),
        length @ 126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// Decodes reads one after the other, as a shard does; what follows a close is not decoded.
fn decode_reads<'a>(reads: impl IntoIterator<Item = &'a [u8]>, max: usize) -> (Vec<Event>, Result<(), Violation>) {
    let mut partial = None;
    let mut events = Vec::new();
    for read in reads {
        let outcome = decode(&mut partial, &mut read.to_vec(), max, &mut |frame| {
            events.push(frame.into());
            Flow::Continue
        });
        if outcome.is_err() {
            assert!(partial.is_none());
            return (events, outcome);
        }
        if matches!(events.last(), Some(Event::Close(..))) {
            break;
        }
    }
    (events, Ok(()))
}

fn at_once(bytes: &[u8]) -> (Vec<Event>, Result<(), Violation>) {
    decode_reads([bytes], MESSAGE_BYTES_MAX)
}

/// Every way in which a stream may arrive must give what it gives at once.
fn assert_same_when_split(bytes: &[u8]) {
    let whole = at_once(bytes);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(decode_reads([head, tail], MESSAGE_BYTES_MAX), whole, "cut at {cut}: {bytes:02x?}");
    }
    assert_eq!(decode_reads(bytes.chunks(1), MESSAGE_BYTES_MAX), whole, "byte by byte: {bytes:02x?}");
}

#[test]
fn whole_frames_leave_nothing_behind() {
    let mut bytes = [frame(0x81, "héllo".as_bytes()), frame(0x82, &[0xff; 300]), frame(0x89, b"")].concat();
    let mut partial = None;
    let mut count = 0;
    let outcome = decode(&mut partial, &mut bytes, MESSAGE_BYTES_MAX, &mut |_| {
        count += 1;
        Flow::Continue
    });
    assert_eq!((outcome, count), (Ok(()), 3));
    assert!(partial.is_none());
}

#[test]
fn a_masked_frame_split_at_every_byte_decodes_the_same() {
    for bytes in [
        frame(0x81, "text with é and 💧 in it".as_bytes()),
        frame(0x82, &(0..=255).collect::<Vec<u8>>()),
        frame(0x82, &[]),
        frame(0x89, b"ping"),
        frame(0x8a, &[9; 125]),
        [frame(0x81, b"bye"), frame(0x88, b"\x03\xe8so long")].concat(),
        frame(0x88, b""),
    ] {
        assert!(at_once(&bytes).1.is_ok());
        assert_same_when_split(&bytes);
    }
}

#[test]
fn fragments_are_joined_and_control_frames_pass_between_them() {
    let bytes = [
        frame(0x01, b"one "),
        frame(0x89, b"p"),
        frame(0x00, b""),
        frame(0x8a, b"q"),
        frame(0x80, b"two"),
        frame(0x02, &[0xff]),
        frame(0x80, &[0xfe]),
    ]
    .concat();
    let events = [
        Event::Ping(b"p".into()),
        Event::Pong(b"q".into()),
        Event::Text("one two".into()),
        Event::Binary(vec![0xff, 0xfe]),
    ];
    assert_eq!(at_once(&bytes), (events.to_vec(), Ok(())));
    assert_same_when_split(&bytes);
}

#[test]
fn a_character_may_be_split_across_fragments() {
    for cut in 0..="a💧é".len() {
        let (head, tail) = "a💧é".as_bytes().split_at(cut);
        let bytes = [frame(0x01, head), frame(0x80, tail)].concat();
        assert_eq!(at_once(&bytes), (vec![Event::Text("a💧é".into())], Ok(())));
        assert_same_when_split(&bytes);
    }
}

#[test]
fn text_fails_as_soon_as_it_cannot_become_utf8() {
    // U+D800, a surrogate, is refused at its second byte; the fragment and the message have not ended.
    let mut bytes = frame(0x01, b"\xed\xa0\x80 and more");
    bytes.truncate(2 + 4 + 2);
    assert_eq!(at_once(&bytes).1.unwrap_err().code, 1007);
    assert_same_when_split(&bytes);
}

#[test]
fn every_violation_has_its_code_wherever_the_stream_is_cut() {
    let too_big = vec![0; MESSAGE_BYTES_MAX + 1];
    let half = vec![0; MESSAGE_BYTES_MAX / 2 + 1];
    let rows: Vec<(&str, u16, Vec<u8>)> = vec![
        ("unmasked", 1002, vec![0x81, 0x01, b'a']),
        ("rsv1", 1002, frame(0xc1, b"a")),
        ("rsv2", 1002, frame(0xa1, b"a")),
        ("rsv3", 1002, frame(0x91, b"a")),
        ("reserved data opcode", 1002, frame(0x83, b"")),
        ("reserved control opcode", 1002, frame(0x8b, b"")),
        ("fragmented ping", 1002, frame(0x09, b"")),
        ("long ping", 1002, frame(0x89, &[0; 126])),
        ("long close", 1002, frame(0x88, &[0; 126])),
        ("text inside a message", 1002, [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        ("binary inside a message", 1002, [frame(0x01, b"a"), frame(0x02, b"b")].concat()),
        ("continuation without a start", 1002, frame(0x80, b"a")),
        ("continuation after the end", 1002, [frame(0x81, b"a"), frame(0x80, b"b")].concat()),
        ("16 bits for 125", 1002, vec![0x82, 0xfe, 0, 125, 1, 2, 3, 4]),
        ("64 bits for 65535", 1002, vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4]),
        ("top bit of the length", 1002, vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]),
        ("half a close code", 1002, frame(0x88, &[3])),
        ("reason not UTF-8", 1007, frame(0x88, b"\x03\xe8\xff")),
        ("text not UTF-8", 1007, frame(0x81, b"a\xffb")),
        ("text ends inside a character", 1007, frame(0x81, "é".as_bytes().split_at(1).0)),
        ("fragmented text ends inside a character", 1007, [frame(0x01, b"a"), frame(0x80, b"\xc3")].concat()),
        ("too big", 1009, frame(0x82, &too_big)[..14].to_vec()),
        ("2^62 bytes", 1009, vec![0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
    ];
    for (name, code, bytes) in rows {
        assert_eq!(at_once(&bytes).1.map_err(|violation| violation.code), Err(code), "{name}");
        assert_same_when_split(&bytes);
    }
    let together = [frame(0x02, &half), frame(0x80, &half)].concat();
    assert_eq!(at_once(&together).1.unwrap_err().code, 1009, "too big together");
}

#[test]
fn a_close_code_is_accepted_only_if_it_may_be_sent() {
    for code in 0..=u16::MAX {
        let sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
        let (events, outcome) = at_once(&frame(0x88, &code.to_be_bytes()));
        assert_eq!(outcome.is_ok(), sendable, "{code}");
        assert_eq!(events.len(), usize::from(sendable));
    }
}

#[test]
fn a_message_of_exactly_the_limit_passes() {
    let payload = vec![b'x'; MESSAGE_BYTES_MAX];
    let (head, tail) = payload.split_at(MESSAGE_BYTES_MAX / 3);
    for bytes in [frame(0x82, &payload), [frame(0x02, head), frame(0x80, tail)].concat()] {
        assert_eq!(at_once(&bytes), (vec![Event::Binary(payload.clone())], Ok(())));
    }
}

#[test]
fn what_is_kept_grows_with_what_arrived_not_with_what_was_announced() {
    let whole = frame(0x82, &vec![0; MESSAGE_BYTES_MAX]);
    let fragments = [frame(0x02, b""), frame(0x00, b"x").repeat(MESSAGE_BYTES_MAX)].concat();
    for stream in [&whole[..whole.len() - 1], &fragments] {
        let (mut partial, mut arrived) = (None, 0);
        for read in stream.chunks(1000) {
            decode(&mut partial, &mut read.to_vec(), MESSAGE_BYTES_MAX, &mut |_| Flow::Continue).unwrap();
            arrived += read.len();
            let kept = partial.as_ref().unwrap().bytes();
            assert!(kept <= 512 + MESSAGE_BYTES_MAX.min(2 * arrived), "{kept} bytes for {arrived}");
        }
    }
}

#[test]
fn nothing_after_a_close_or_a_stop_is_decoded() {
    let broken = [0xff; 20];
    let bytes = [frame(0x88, b"\x03\xe8"), broken.to_vec()].concat();
    assert_eq!(at_once(&bytes), (vec![Event::Close(Some(1000), String::new())], Ok(())));

    let mut partial = None;
    let mut bytes = [frame(0x89, b""), broken.to_vec()].concat();
    assert_eq!(decode(&mut partial, &mut bytes, MESSAGE_BYTES_MAX, &mut |_| Flow::Stop), Ok(()));
    assert!(partial.is_none());
}

#[test]
fn a_pause_keeps_the_rest_for_later() {
    let text = |index: usize| frame(0x81, format!("message {index}").as_bytes());
    let stream: Vec<u8> = (0..10).flat_map(text).collect();
    for cut in 0..=stream.len() {
        let mut partial: Option<Box<Partial>> = None;
        let mut events = Vec::new();
        let mut one = |frame: ClientFrame<'_>| {
            events.push(Event::from(frame));
            Flow::Pause
        };
        for read in [&stream[..cut], &stream[cut..]] {
            decode(&mut partial, &mut read.to_vec(), MESSAGE_BYTES_MAX, &mut one).unwrap();
            while partial.as_ref().is_some_and(|partial| partial.is_paused()) {
                decode(&mut partial, &mut [], MESSAGE_BYTES_MAX, &mut one).unwrap();
            }
        }
        assert!(partial.is_none(), "cut at {cut}");
        assert_eq!((events, Ok(())), at_once(&stream));
    }
}

#[test]
fn bytes_read_during_a_pause_wait_behind_those_kept() {
    let stream = [frame(0x89, b"1"), frame(0x89, b"2"), frame(0x89, b"3")].concat();
    let mut partial = None;
    let mut events = Vec::new();
    for read in stream.chunks(stream.len() / 2) {
        let mut pausing = |frame: ClientFrame<'_>| {
            events.push(Event::from(frame));
            Flow::Pause
        };
        decode(&mut partial, &mut read.to_vec(), MESSAGE_BYTES_MAX, &mut pausing).unwrap();
    }
    decode(&mut partial, &mut [], MESSAGE_BYTES_MAX, &mut |frame| {
        events.push(frame.into());
        Flow::Continue
    })
    .unwrap();
    assert_eq!((events, Ok(())), at_once(&stream));
    assert!(partial.is_none());
}

/// One message or control frame, as the model knows it.
fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        ".{0,80}".prop_map(Event::Text),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Event::Binary),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Event::Ping),
        proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Event::Pong),
    ]
}

/// The frames of a model's events: messages are fragmented at `cuts`, with a ping between the fragments.
fn frames_of(events: &[Event], cuts: &[usize]) -> (Vec<u8>, Vec<Event>) {
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        let (opcode, payload) = match event {
            Event::Text(text) => (1, text.as_bytes()),
            Event::Binary(payload) => (2, payload.as_slice()),
            Event::Ping(payload) => (9, payload.as_slice()),
            Event::Pong(payload) => (10, payload.as_slice()),
            Event::Close(..) => unreachable!("the model does not close"),
        };
        let cut = cuts[index % cuts.len()] % (2 * payload.len() + 1);
        if opcode < 8 && cut <= payload.len() {
            bytes.extend(frame(opcode, &payload[..cut]));
            bytes.extend(frame(0x89, b"between"));
            bytes.extend(frame(0x80, &payload[cut..]));
            expected.push(Event::Ping(b"between".into()));
        } else {
            bytes.extend(frame(0x80 | opcode, payload));
        }
        expected.push(event.clone());
    }
    (bytes, expected)
}

/// `bytes` in reads of the sizes given, over and over.
fn reads<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for size in sizes.iter().cycle() {
        let (read, rest) = bytes.split_at((*size).min(bytes.len()));
        reads.push(read);
        bytes = rest;
        if bytes.is_empty() {
            break;
        }
    }
    reads
}

proptest! {
    #[test]
    fn valid_frames_in_any_chunks_are_what_the_model_says(
        events in proptest::collection::vec(any_event(), 0..12),
        cuts in proptest::collection::vec(any::<usize>(), 1..4),
        sizes in proptest::collection::vec(1_usize..200, 1..6),
    ) {
        let (bytes, expected) = frames_of(&events, &cuts);
        prop_assert_eq!(at_once(&bytes), (expected.clone(), Ok(())));
        prop_assert_eq!(decode_reads(reads(&bytes, &sizes), MESSAGE_BYTES_MAX), (expected, Ok(())));
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_never_hoard(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        first in prop_oneof![Just(0x01_u8), Just(0x02), Just(0x81), Just(0x82), Just(0x89), Just(0x88)],
        sizes in proptest::collection::vec(1_usize..64, 1..4),
        max in 0_usize..400,
        pause in any::<bool>(),
    ) {
        let stream = [frame(first, &bytes[..bytes.len() / 3]), bytes].concat();
        let mut partial: Option<Box<Partial>> = None;
        for read in reads(&stream, &sizes) {
            let mut flow = |_: ClientFrame<'_>| if pause { Flow::Pause } else { Flow::Continue };
            let mut outcome = decode(&mut partial, &mut read.to_vec(), max, &mut flow);
            while outcome.is_ok() && partial.as_ref().is_some_and(|partial| partial.is_paused()) {
                prop_assert!(partial.as_ref().unwrap().bytes() <= max + read.len() + 512);
                outcome = decode(&mut partial, &mut [], max, &mut flow);
            }
            prop_assert!(partial.as_ref().is_none_or(|partial| partial.bytes() <= max + 512));
            if outcome.is_err() {
                break;
            }
        }
        prop_assert_eq!(
            decode_reads(reads(&stream, &sizes), max),
            decode_reads([stream.as_slice()], max)
        );
    }
}
