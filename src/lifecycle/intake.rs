//! From how many clients to read at once, so that what they sent does not hold up the others. Pure.

/// Bytes of clients that are taken in between two fan-outs. The shortest commands cost a shard some 20 ns a byte (measured:
/// 64 buffers full of them made turns of 20 ms, and 40,000 updates a second overran the inbox meanwhile), so this is about
/// 2 ms of the worst; clients that answer pings send a hundredth of it.
const BYTES_MAX: usize = 128 << 10;
/// As many as ever: more than there are buffers.
const READS_MAX: usize = 256;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Intake {
    reads: usize,
    bytes: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self { reads: READS_MAX, bytes: 0 }
    }
}

impl Intake {
    /// So many bytes of a client were taken in.
    pub fn took(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// From how many clients to read now, judged by what came of the last reads; call it once a turn.
    pub fn next_reads(&mut self) -> usize {
        let bytes = std::mem::take(&mut self.bytes);
        self.reads = if bytes > BYTES_MAX { self.reads * BYTES_MAX / bytes } else { self.reads * 2 };
        self.reads = self.reads.clamp(1, READS_MAX);
        self.reads
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_are_read_the_more_they_send_and_all_again_when_they_send_less() {
        let mut intake = Intake::default();
        let mut turn = |bytes_each: usize, buffers: usize| {
            let reads = intake.next_reads().min(buffers);
            (0..reads).for_each(|_| intake.took(bytes_each));
            reads
        };
        assert_eq!(turn(6, 64), 64, "pongs");
        assert_eq!(turn(16 << 10, 64), 64);
        let flooded: Vec<usize> = (0..50).map(|_| turn(16 << 10, 64)).collect();
        assert!(flooded[5..].iter().all(|reads| (4..=16).contains(reads)), "{flooded:?}");
        let quiet: Vec<usize> = (0..8).map(|_| turn(6, 64)).collect();
        assert_eq!(quiet.last(), Some(&64), "{quiet:?}");
    }

    #[test]
    fn somebody_is_always_read() {
        let mut intake = Intake::default();
        for _ in 0..20 {
            intake.took(usize::MAX / READS_MAX);
            assert!(intake.next_reads() >= 1);
        }
    }
}
