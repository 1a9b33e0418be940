//! However a client's bytes are cut into reads, and however often the sink pauses, the same frames and the same end
//! come out, and no more is kept than the limit, one read and a small constant.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use spillgate::wire::{ClientFrame, Flow, Partial, Violation, decode};

#[derive(Arbitrary, Debug)]
struct Input {
    frames: Vec<(u8, Vec<u8>)>,
    noise: Vec<u8>,
    read_bytes: Vec<u8>,
    message_bytes_max: u8,
}

type Outcome = (Vec<String>, Result<(), Violation>);

fuzz_target!(|input: Input| {
    let mut stream = Vec::new();
    for (first, payload) in &input.frames {
        frame(*first, payload, &mut stream);
    }
    stream.extend_from_slice(&input.noise);
    let max = usize::from(input.message_bytes_max) * 4;

    let at_once = run([stream.as_slice()], max, Flow::Continue);
    let sizes: Vec<usize> = input.read_bytes.iter().map(|&size| usize::from(size) + 1).collect();
    for flow in [Flow::Continue, Flow::Pause] {
        assert_eq!(run(stream.chunks(1), max, flow), at_once);
        assert_eq!(run(reads(&stream, &sizes), max, flow), at_once);
    }
});

/// A masked frame with an honest header; `first` is its first byte.
fn frame(first: u8, payload: &[u8], stream: &mut Vec<u8>) {
    let mask = [0x12, 0x00, 0xff, 0x81];
    // Reserved bits end a stream at once: mostly leave them out.
    stream.push(if first & 0x70 == 0x70 { first } else { first & 0x8f });
    match payload.len() {
        length @ 0..126 => stream.push(0x80 | length as u8),
        length => {
            stream.push(0x80 | 126);
            stream.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    stream.extend_from_slice(&mask);
    stream.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
}

fn reads<'a>(mut stream: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut reads = Vec::new();
    for size in sizes {
        let (read, rest) = stream.split_at((*size).min(stream.len()));
        reads.push(read);
        stream = rest;
    }
    reads.push(stream);
    reads
}

/// What a shard sees: every frame, and how it ended. After a close nothing is decoded.
fn run<'a>(reads: impl IntoIterator<Item = &'a [u8]>, max: usize, flow: Flow) -> Outcome {
    let mut partial: Option<Box<Partial>> = None;
    let (mut frames, mut closed) = (Vec::new(), false);
    for read in reads {
        let mut sink = |frame: ClientFrame<'_>| {
            assert!(!closed, "a frame after a close");
            closed = matches!(frame, ClientFrame::Close { .. });
            frames.push(format!("{frame:?}"));
            flow
        };
        let mut outcome = decode(&mut partial, &mut read.to_vec(), max, &mut sink);
        while outcome.is_ok() && partial.as_ref().is_some_and(|partial| partial.is_paused()) {
            assert!(flow == Flow::Pause && bytes(&partial) <= max + read.len() + 512);
            outcome = decode(&mut partial, &mut [], max, &mut sink);
        }
        assert!(bytes(&partial) <= max + 512);
        if outcome.is_err() || closed {
            assert!(partial.is_none());
            return (frames, outcome);
        }
    }
    (frames, Ok(()))
}

fn bytes(partial: &Option<Box<Partial>>) -> usize {
    partial.as_ref().map_or(0, |partial| partial.bytes())
}
