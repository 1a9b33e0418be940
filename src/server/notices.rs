//! Log lines for what an operator should do something about although no error ends anything: no room for clients, a
//! thread that hangs. (`shard/tell.rs` says which client was closed for what.)
//!
//! Invariant: however many clients cause it, a kind is one line in ten seconds, with their number. It is told from the
//! counters, by the main thread: no shard writes a line for a client.

use crate::admin::View;
use crate::metrics::{DropReason, EndReason, ShardCounters};
use std::time::{Duration, Instant};

/// Pause between two lines of one kind.
const PAUSE: Duration = Duration::from_secs(10);

/// What is told, and how much of it has been.
#[derive(Default)]
pub struct Notices {
    kinds: [Told; KINDS.len()],
    hanging: bool,
}

#[derive(Clone, Copy, Default)]
struct Told {
    count: u64,
    at: Option<Instant>,
}

struct Kind {
    of: fn(&View) -> u64,
    text: &'static str,
}

const KINDS: [Kind; 5] = [
    Kind {
        of: |view| all(view, |counters| counters.ended[EndReason::Full as usize]),
        text: "clients were refused: every place is taken (limits.connections_per_shard_max, RLIMIT_NOFILE)",
    },
    Kind {
        of: |view| all(view, |counters| counters.accept_errors),
        text: "connections were lost while they were accepted: no descriptor or no memory (fs.file-max, cgroup)",
    },
    Kind {
        of: |view| all(view, |counters| counters.ended[EndReason::PartialBudget as usize]),
        text: "clients were closed: unfinished frames and requests took all of limits.partial_bytes_per_shard_max",
    },
    Kind {
        of: |view| all(view, |counters| counters.dropped[DropReason::ShardBudget as usize]),
        text: "updates for slow clients were dropped: what waits takes all of limits.outbox_bytes_per_shard_max",
    },
    Kind {
        of: |view| view.crowd.cut(),
        text: "connections of the admin interface were closed for others: all of its places were taken by such as ask \
               nothing (who holds them: `ss -tnp`)",
    },
];

/// The sum over all shards.
fn all(view: &View, of: fn(&ShardCounters) -> u64) -> u64 {
    view.shards.iter().map(|shard| of(&shard.counters())).sum()
}

impl Notices {
    /// Tells what is new. `hanging` is the sentence of [`View::hanging`].
    pub fn look(&mut self, view: &View, hanging: Option<String>) {
        match hanging {
            Some(hanging) if !self.hanging => {
                self.hanging = true;
                tracing::error!(
                    "{hanging}: it hangs, and the service manager's watchdog is told no more that this gateway lives"
                );
            }
            None if self.hanging => {
                self.hanging = false;
                tracing::warn!("all threads take turns again");
            }
            _ => {}
        }
        let now = Instant::now();
        for (kind, told) in KINDS.iter().zip(&mut self.kinds) {
            if let Some(count) = told.due((kind.of)(view), now) {
                tracing::warn!(count, "{}", kind.text);
            }
        }
    }
}

impl Told {
    /// How many are to be told of now, if any.
    fn due(&mut self, count: u64, now: Instant) -> Option<u64> {
        let new = count.saturating_sub(self.count);
        if new == 0 || self.at.is_some_and(|at| now.duration_since(at) < PAUSE) {
            return None;
        }
        *self = Self { count, at: Some(now) };
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_at_once_and_then_every_ten_seconds_at_most_and_nothing_is_forgotten() {
        let (mut told, began) = (Told::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        for (second, count, expected) in [
            (0, 0, None),
            (1, 3, Some(3)),
            (2, 4, None),
            (10, 9, None),
            (11, 10, Some(7)),
            (60, 10, None),
            (61, 11, Some(1)),
        ] {
            assert_eq!(told.due(count, at(second)), expected, "{second}");
        }
    }
}
