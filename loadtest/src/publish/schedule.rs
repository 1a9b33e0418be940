//! What is due when: an open loop, which nothing that happens can slow down. Pure.

use crate::scenario::{Phase, Publish, Scenario};

const SECOND_NS: u64 = 1_000_000_000;
/// Some thirty years.
const NEVER_NS: u64 = 1_000_000_000 * SECOND_NS;

/// An update that is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// When, in nanoseconds.
    pub due_ns: u64,
    /// Where.
    pub channel: u32,
    /// About what.
    pub key: u32,
    /// Whether it is a goal.
    pub goal: bool,
    /// Number within its stream, from 1.
    pub n: u32,
    /// Bytes of its payload.
    pub bytes: usize,
}

/// See the module.
pub struct Schedule {
    publish: Publish,
    channels: u32,
    /// Steps from one update's channel to the next one's: prime to the number of channels, and far.
    stride: u32,
    /// When the first is due, and when phases count from, in nanoseconds.
    start_ns: u64,
    measured_ns: u64,
    /// When the next burst is due, in nanoseconds after the start.
    at_ns: u64,
    in_burst: u32,
    updates: u64,
    /// Last number of each stream.
    last: Vec<u32>,
}

impl Schedule {
    /// The schedule of a scenario whose warm-up begins at a time.
    pub fn new(scenario: &Scenario, start_ns: u64) -> Self {
        let (publish, channels) = (scenario.publish.clone(), scenario.channels);
        let streams = publish.keys + u32::from(publish.goal_every > 0);
        Self {
            channels,
            stride: stride(channels),
            start_ns,
            measured_ns: start_ns + u64::from(scenario.warmup_seconds) * SECOND_NS,
            at_ns: 0,
            in_burst: 0,
            updates: 0,
            last: vec![0; (channels * streams) as usize],
            publish,
        }
    }

    /// The next update; the same until it is taken.
    pub fn peek(&self) -> Due {
        let (channels, keys, goal_every) =
            (u64::from(self.channels), u64::from(self.publish.keys), u64::from(self.publish.goal_every));
        let i = self.updates;
        let goal = goal_every > 0 && i % goal_every == goal_every - 1;
        let (channel, key) = if goal {
            ((i / goal_every % channels) as u32, 0)
        } else {
            ((i % channels * u64::from(self.stride) % channels) as u32, (i / channels % keys) as u32)
        };
        let due_ns = self.start_ns + self.at_ns;
        let bytes = self.phase(self.at_ns).and_then(|phase| phase.bytes).unwrap_or(self.publish.bytes);
        Due { due_ns, channel, key, goal, n: self.last[self.stream(channel, key, goal)] + 1, bytes }
    }

    /// The update that [`Schedule::peek`] gave is published; the one after is next.
    pub fn take(&mut self, due: &Due) {
        let stream = self.stream(due.channel, due.key, due.goal);
        self.last[stream] = due.n;
        self.updates += 1;
        self.in_burst += 1;
        if self.in_burst == self.publish.burst {
            (self.in_burst, self.at_ns) = (0, self.after(self.at_ns));
        }
    }

    /// Updates taken.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Last number of each stream, by channel and stream.
    pub fn last(&self) -> &[u32] {
        &self.last
    }

    fn stream(&self, channel: u32, key: u32, goal: bool) -> usize {
        let streams = self.publish.keys + u32::from(self.publish.goal_every > 0);
        (channel * streams + if goal { self.publish.keys } else { key }) as usize
    }

    /// The phase at a time, in nanoseconds after the start.
    fn phase(&self, at_ns: u64) -> Option<&Phase> {
        let within = |phase: &&Phase| {
            let from_ns = self.edge_ns(phase.at);
            (from_ns..from_ns + u64::from(phase.seconds) * SECOND_NS).contains(&at_ns)
        };
        self.publish.phases.iter().find(within)
    }

    /// A second of the measured time, in nanoseconds after the start.
    fn edge_ns(&self, at_s: u32) -> u64 {
        self.measured_ns - self.start_ns + u64::from(at_s) * SECOND_NS
    }

    /// When the burst after one at a time is due.
    fn after(&self, at_ns: u64) -> u64 {
        let rate = |at_ns| self.phase(at_ns).and_then(|phase| phase.rate).unwrap_or(self.publish.rate);
        match rate(at_ns) {
            rate if rate > 0.0 => at_ns + (f64::from(self.publish.burst) / rate * SECOND_NS as f64) as u64,
            _ => {
                // Silence lasts until a phase begins or ends that leaves it.
                let edges = self.publish.phases.iter().flat_map(|phase| [phase.at, phase.at + phase.seconds]);
                let edges = edges.map(|edge| self.edge_ns(edge)).filter(|edge| *edge > at_ns && rate(*edge) > 0.0);
                edges.min().unwrap_or(NEVER_NS)
            }
        }
    }
}

fn stride(channels: u32) -> u32 {
    let gcd = |mut a: u32, mut b: u32| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let golden = (f64::from(channels) * 0.618) as u32;
    (golden..=channels).find(|stride| *stride > 0 && gcd(*stride, channels) == 1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(text: &str) -> Scenario {
        let head = "name = \"x\"\nabout = \"x\"\nsockets = 1\nseconds = 60\nwarmup_seconds = 1\n";
        toml::from_str(&format!("{head}{text}")).expect("it is a scenario")
    }

    fn take(schedule: &mut Schedule, count: usize) -> Vec<Due> {
        let one = |_| {
            let due = schedule.peek();
            schedule.take(&due);
            due
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn every_channel_and_key_has_its_turn_and_its_own_numbers() {
        let scenario = scenario("channels = 10\n[publish]\nrate = 1000\nbytes = 300\nkeys = 3\n");
        let due = take(&mut Schedule::new(&scenario, 5_000_000_000), 60);
        assert_eq!((due[0].due_ns, due[59].due_ns), (5_000_000_000, 5_059_000_000));
        for channel in 0..10 {
            for key in 0..3 {
                let numbers: Vec<_> =
                    due.iter().filter(|d| (d.channel, d.key) == (channel, key)).map(|d| d.n).collect();
                assert_eq!(numbers, [1, 2], "channel {channel}, key {key}");
            }
        }
    }

    #[test]
    fn phases_change_rate_and_size_and_goals_have_numbers_of_their_own() {
        let scenario = scenario(
            "[publish]\nrate = 10\nbytes = 300\ngoal_every = 5\n[[publish.phase]]\nat = 0\nseconds = 1\nrate = 0\n\
             [[publish.phase]]\nat = 1\nseconds = 1\nrate = 100\nbytes = 20000\n",
        );
        let mut schedule = Schedule::new(&scenario, 0);
        let due = take(&mut schedule, 130);
        let between = |from: f64, to: f64| {
            due.iter().filter(|d| (from..to).contains(&(d.due_ns as f64 / 1e9))).map(|d| d.bytes).collect::<Vec<_>>()
        };
        assert_eq!((between(0.0, 0.999).len(), between(1.001, 1.999).len()), (10, 0));
        let spike = between(1.9999, 2.9999);
        assert!(spike.len().abs_diff(100) <= 1 && spike.iter().all(|bytes| *bytes == 20_000), "{}", spike.len());
        let goals: Vec<_> = due.iter().filter(|d| d.goal).map(|d| d.n).collect();
        assert_eq!(goals, (1..=26).collect::<Vec<_>>());
        assert_eq!((schedule.last(), schedule.updates()), (&[104, 26][..], 130));
    }

    #[test]
    fn a_burst_is_due_at_one_moment() {
        let scenario = scenario("[publish]\nrate = 50\nburst = 50\nbytes = 300\n");
        let due = take(&mut Schedule::new(&scenario, 0), 101);
        assert!(due[..50].iter().all(|d| d.due_ns == 0) && due[50..100].iter().all(|d| d.due_ns == 1_000_000_000));
        assert_eq!(due[100].due_ns, 2_000_000_000);
    }
}
