//! How a lost Redis is noticed, and how often it is tried again. Pure: time comes in as microseconds.
//!
//! An open TCP connection proves nothing: the proof is a message that went through Redis and came back.

use std::time::Duration;

/// Shortest upper bound of a pause between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// A probe that is late is looked for once more after this time: if this thread itself was held up, its answer is
/// there already, unread.
const SECOND_LOOK_US: u64 = 20_000;
/// A probe that Redis took may wait behind a backlog of messages for this many time-outs, as long as they flow: to cut
/// off a connection that is only late would lose all that is on its way.
const BACKLOG_TIMEOUTS: u64 = 10;

/// The messages that go through Redis and back.
#[derive(Debug)]
pub struct Probe {
    interval_us: u64,
    timeout_us: u64,
    /// Counts the probes; the number is what is sent.
    number: u64,
    /// When the one that is out was sent, and when it counts as lost.
    out: Option<Out>,
    next_us: u64,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    sent_us: u64,
    until_us: u64,
    /// Redis answered the PUBLISH: the probe is on its way back.
    taken: bool,
    looked_twice: bool,
}

/// What a look at the clock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Look {
    /// Nothing is due.
    Wait,
    /// Send this number.
    Send(u64),
    /// The last one did not come back in time.
    Lost,
}

impl Probe {
    /// Probes that start at once.
    pub fn new(interval: Duration, timeout: Duration, now_us: u64) -> Self {
        let (interval_us, timeout_us) = (interval.as_micros() as u64, timeout.as_micros() as u64);
        Self { interval_us, timeout_us, number: 0, out: None, next_us: now_us }
    }

    /// When to look again.
    pub fn due_us(&self) -> u64 {
        self.out.map_or(self.next_us, |out| out.until_us)
    }

    /// What is due now.
    pub fn look(&mut self, now_us: u64) -> Look {
        match &mut self.out {
            Some(out) if now_us < out.until_us => Look::Wait,
            Some(out) if out.looked_twice => Look::Lost,
            Some(out) => {
                *out = Out { until_us: now_us + SECOND_LOOK_US, looked_twice: true, ..*out };
                Look::Wait
            }
            None if now_us < self.next_us => Look::Wait,
            None => {
                self.number += 1;
                self.next_us = now_us + self.interval_us;
                let until_us = now_us + self.timeout_us;
                self.out = Some(Out { sent_us: now_us, until_us, taken: false, looked_twice: false });
                Look::Send(self.number)
            }
        }
    }

    /// Redis answered the PUBLISH of the last probe.
    pub fn taken(&mut self) {
        if let Some(out) = &mut self.out {
            out.taken = true;
        }
    }

    /// Other messages came: the probe may be behind them.
    pub fn heard(&mut self, now_us: u64) {
        let Some(out) = self.out.as_mut().filter(|out| out.taken) else { return };
        let last_us = out.sent_us + BACKLOG_TIMEOUTS * self.timeout_us;
        if now_us < last_us {
            (out.until_us, out.looked_twice) = ((now_us + self.timeout_us).min(last_us), false);
        }
    }

    /// A probe came back; whether it is the one that is waited for.
    pub fn returned(&mut self, payload: &[u8]) -> bool {
        let awaited = payload == self.number.to_string().as_bytes();
        if awaited {
            self.out = None;
        }
        awaited
    }
}

/// Pauses between attempts: they double from 50 ms to a bound, each with full jitter (between nothing and the whole
/// pause), so that gateways do not come back in step.
///
/// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
#[derive(Debug)]
pub struct Backoff {
    bound: Duration,
    max: Duration,
}

impl Backoff {
    /// Pauses of at most `max`.
    pub fn new(max: Duration) -> Self {
        Self { bound: PAUSE_MIN.min(max), max }
    }

    /// The next pause; `random` lies between 0 and 1.
    pub fn pause(&mut self, random: f64) -> Duration {
        let pause = self.bound.mul_f64(random.clamp(0.0, 1.0));
        self.bound = (self.bound * 2).min(self.max);
        pause
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.bound = PAUSE_MIN.min(self.max);
    }
}

/// Lets something happen at most once in a while: log lines.
#[derive(Debug)]
pub struct AtMostEvery {
    pause_us: u64,
    next_us: u64,
}

impl AtMostEvery {
    /// At most once in `pause`.
    pub fn new(pause: Duration) -> Self {
        Self { pause_us: pause.as_micros() as u64, next_us: 0 }
    }

    /// Whether it may happen now.
    pub fn allows(&mut self, now_us: u64) -> bool {
        let allowed = now_us >= self.next_us;
        if allowed {
            self.next_us = now_us + self.pause_us;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe() -> Probe {
        Probe::new(Duration::from_secs(1), Duration::from_secs(3), 0)
    }

    #[test]
    fn a_probe_that_does_not_come_back_is_a_loss_at_the_second_look() {
        let mut probe = probe();
        assert_eq!(probe.look(0), Look::Send(1));
        assert_eq!(probe.due_us(), 3_000_000);
        assert_eq!(probe.look(2_999_999), Look::Wait);
        assert_eq!(probe.look(3_000_000), Look::Wait, "it may be here, unread");
        assert_eq!(probe.look(3_000_000 + SECOND_LOOK_US), Look::Lost);
    }

    #[test]
    fn a_probe_behind_a_backlog_is_waited_for_as_long_as_messages_flow_but_not_for_ever() {
        let mut probe = probe();
        assert_eq!(probe.look(0), Look::Send(1));
        probe.heard(1_000_000);
        assert_eq!(probe.due_us(), 3_000_000, "Redis did not even take it");
        probe.taken();
        (1..60).for_each(|second| probe.heard(second * 1_000_000));
        assert_eq!(probe.due_us(), 30_000_000);
        assert_eq!(probe.look(30_000_000), Look::Wait);
        probe.heard(30_000_001);
        assert_eq!(probe.look(30_000_000 + SECOND_LOOK_US), Look::Lost);
    }

    #[test]
    fn only_the_newest_probe_counts_and_the_next_one_follows_after_the_interval() {
        let mut probe = probe();
        assert_eq!(probe.look(0), Look::Send(1));
        assert!(!probe.returned(b"7"), "somebody else's");
        assert!(probe.returned(b"1"));
        assert_eq!(probe.look(999_999), Look::Wait);
        assert_eq!(probe.look(1_000_000), Look::Send(2));
        assert!(!probe.returned(b"1"), "an old one");
        assert_eq!(probe.due_us(), 4_000_000);
    }

    #[test]
    fn pauses_double_to_their_bound_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(300));
        let pauses: Vec<_> = (0..5).map(|_| backoff.pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
        backoff.reset();
        assert_eq!(backoff.pause(0.5).as_millis(), 25);
    }
}
