//! What must come of a run: one bound a field, each checked against what was measured.

use serde::{Deserialize, Serialize};

/// Bounds; what is left out is not checked, but that nothing is torn or out of order always is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Fraction of the sockets that is open when updates begin, at least; 1 if left out.
    pub connected_min: Option<f64>,
    /// Updates that healthy readers missed.
    pub lost_max: Option<u64>,
    /// Goals that any reader missed without having been closed.
    pub goals_lost_max: Option<u64>,
    /// Median age of an update at fast readers, in milliseconds.
    pub p50_ms_max: Option<f64>,
    /// The same, 99 of 100.
    pub p99_ms_max: Option<f64>,
    /// The same, 999 of 1,000.
    pub p999_ms_max: Option<f64>,
    /// Connections of fast readers that the server ended.
    pub closed_max: Option<u64>,
    /// Handshakes refused.
    pub refused_max: Option<u64>,
    /// Growth of the server's resident memory for each socket, from none to all connected, in bytes.
    pub rss_per_socket_max: Option<f64>,
    /// Slope of the server's resident memory over the second half of the run, in bytes a second.
    pub rss_slope_max_bytes_per_s: Option<f64>,
    /// Growth of the memory of server, clients and kernel, from all connected until stalled clients read again (or the
    /// end), for each stalled socket, in bytes.
    pub host_growth_per_stalled_max: Option<f64>,
    /// Growth of what the kernel charges to TCP buffers, in the same time, for each stalled socket, in bytes.
    pub tcp_growth_per_stalled_max: Option<f64>,
    /// CPU of the server for each update that a client received, in microseconds.
    pub cpu_us_per_delivery_max: Option<f64>,
    /// The same over that of the floor; needs `--with-floor`.
    pub floor_ratio_max: Option<f64>,
    /// From the moment a client read again to the newest state, median, in milliseconds.
    pub resume_p50_ms_max: Option<f64>,
    /// From a herd's start until as many are connected as before, in seconds.
    pub recover_seconds_max: Option<f64>,
    /// Connections, waiting updates and bytes, files of rings and descriptors that the gateway holds when all clients are
    /// gone, beyond what it held before the first.
    pub left_max: Option<u64>,
}

/// An expectation that does not hold, as a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Unmet(pub String);

/// What an expectation is checked against; none where it was not measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// See [`Expect::connected_min`].
    pub connected: Option<f64>,
    /// See [`Expect::lost_max`].
    pub lost: Option<f64>,
    /// See [`Expect::goals_lost_max`].
    pub goals_lost: Option<f64>,
    /// See [`Expect::p50_ms_max`].
    pub p50_ms: Option<f64>,
    /// See [`Expect::p99_ms_max`].
    pub p99_ms: Option<f64>,
    /// See [`Expect::p999_ms_max`].
    pub p999_ms: Option<f64>,
    /// See [`Expect::closed_max`].
    pub closed: Option<f64>,
    /// See [`Expect::refused_max`].
    pub refused: Option<f64>,
    /// See [`Expect::rss_per_socket_max`].
    pub rss_per_socket: Option<f64>,
    /// See [`Expect::rss_slope_max_bytes_per_s`].
    pub rss_slope_bytes_per_s: Option<f64>,
    /// See [`Expect::host_growth_per_stalled_max`].
    pub host_growth_per_stalled: Option<f64>,
    /// See [`Expect::tcp_growth_per_stalled_max`].
    pub tcp_growth_per_stalled: Option<f64>,
    /// See [`Expect::cpu_us_per_delivery_max`].
    pub cpu_us_per_delivery: Option<f64>,
    /// See [`Expect::floor_ratio_max`].
    pub floor_ratio: Option<f64>,
    /// See [`Expect::resume_p50_ms_max`].
    pub resume_p50_ms: Option<f64>,
    /// See [`Expect::recover_seconds_max`].
    pub recover_seconds: Option<f64>,
    /// See [`Expect::left_max`].
    pub left: Option<f64>,
    /// Frames and payloads that were not whole.
    pub torn: f64,
    /// Updates out of order.
    pub disordered: f64,
    /// Messages that a face does not allow.
    pub wrong: f64,
}

impl Expect {
    /// Whether the ratio to the floor is asked for.
    pub fn wants_floor(&self) -> bool {
        self.floor_ratio_max.is_some()
    }

    /// What does not hold.
    pub fn check(&self, outcome: &Outcome) -> Vec<Unmet> {
        let count = |bound: Option<u64>| bound.map(|bound| bound as f64);
        let at_most = [
            ("torn frames or payloads", Some(0.0), Some(outcome.torn)),
            ("updates out of order", Some(0.0), Some(outcome.disordered)),
            ("messages that the face does not allow", Some(0.0), Some(outcome.wrong)),
            ("updates missed by healthy readers", count(self.lost_max), outcome.lost),
            ("goals missed", count(self.goals_lost_max), outcome.goals_lost),
            ("ms of median age", self.p50_ms_max, outcome.p50_ms),
            ("ms of age at p99", self.p99_ms_max, outcome.p99_ms),
            ("ms of age at p99.9", self.p999_ms_max, outcome.p999_ms),
            ("connections of fast readers that the server ended", count(self.closed_max), outcome.closed),
            ("handshakes refused", count(self.refused_max), outcome.refused),
            ("bytes of resident memory for each socket", self.rss_per_socket_max, outcome.rss_per_socket),
            ("bytes a second of growth", self.rss_slope_max_bytes_per_s, outcome.rss_slope_bytes_per_s),
            (
                "bytes of host memory grown for each stalled socket",
                self.host_growth_per_stalled_max,
                outcome.host_growth_per_stalled,
            ),
            (
                "bytes of TCP buffers grown for each stalled socket",
                self.tcp_growth_per_stalled_max,
                outcome.tcp_growth_per_stalled,
            ),
            ("us of CPU for each delivery", self.cpu_us_per_delivery_max, outcome.cpu_us_per_delivery),
            ("times the floor's CPU for each delivery", self.floor_ratio_max, outcome.floor_ratio),
            ("ms from reading again to the newest state (median)", self.resume_p50_ms_max, outcome.resume_p50_ms),
            ("seconds until the herd was back", self.recover_seconds_max, outcome.recover_seconds),
            ("things held for nobody", count(self.left_max), outcome.left),
        ];
        let mut unmet: Vec<_> = at_most
            .into_iter()
            .filter_map(|(what, bound, measured)| match (bound?, measured) {
                (bound, Some(measured)) if measured <= bound => None,
                (bound, Some(measured)) => {
                    Some(Unmet(format!("{} {what}, at most {} expected", show(measured), show(bound))))
                }
                (bound, None) => Some(Unmet(format!("not measured: {what} (at most {} expected)", show(bound)))),
            })
            .collect();
        let (connected, least) = (outcome.connected.unwrap_or(0.0), self.connected_min.unwrap_or(1.0));
        if connected < least {
            let (percent, least) = (show(connected * 100.0), show(least * 100.0));
            unmet.push(Unmet(format!("{percent} % of the sockets were open when updates began, {least} % expected")));
        }
        unmet
    }
}

/// A number as people read it.
pub fn show(number: f64) -> String {
    let digits = match number.abs() {
        0.0 => 0,
        ..0.1 => 4,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let plain = format!("{number:.digits$}");
    let (whole, rest) = plain.split_once('.').map_or((plain.as_str(), String::new()), |(a, b)| (a, format!(".{b}")));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut grouped = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_is_not_held() {
        let expect = Expect { p99_ms_max: Some(200.0), lost_max: Some(0), ..Expect::default() };
        let outcome = Outcome { connected: Some(1.0), lost: Some(3.0), ..Outcome::default() };
        let sentences: Vec<_> = expect.check(&outcome).into_iter().map(|unmet| unmet.0).collect();
        assert_eq!(
            sentences,
            [
                "3.00 updates missed by healthy readers, at most 0 expected",
                "not measured: ms of age at p99 (at most 200 expected)"
            ]
        );
        let well = Outcome { lost: Some(0.0), p99_ms: Some(3.0), ..outcome };
        assert_eq!(expect.check(&well), []);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, shown) in
            [(0.0, "0"), (1234567.0, "1,234,567"), (-1234.0, "-1,234"), (3.456, "3.46"), (45.67, "45.7")]
        {
            assert_eq!(show(number), shown);
        }
    }
}
