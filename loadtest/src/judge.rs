//! From what was measured to what the bounds are checked against. Pure.

use crate::engine::Kind;
use crate::run::{Measured, Sample};
use crate::scenario::{Deed, Outcome};
use crate::tally::KindTally;

/// What came of a run, as numbers that have bounds.
pub fn outcome(run: &Measured) -> Outcome {
    let kind = |kind: Kind| run.tally.kinds.get(kind as usize).cloned().unwrap_or_default();
    let all = || Kind::ALL.into_iter().map(kind);
    let sum = |count: fn(&KindTally) -> u64| all().map(|kind| count(&kind)).sum::<u64>() as f64;
    let healthy = all().zip(Kind::ALL).filter(|(_, kind)| kind.is_healthy()).map(|(tally, _)| tally);
    let lost: u64 = healthy.map(|tally| tally.skipped + tally.missing_at_end).sum();
    let fast = kind(Kind::Fast);
    let ms = |quantile: f64| (!fast.age_us.is_empty()).then(|| fast.age_us.at(quantile) as f64 / 1000.0);
    let has_server = run.ended.server.rss > 0;
    let sockets = run.connected.seen.open.max(1) as f64;
    let grown = |before: u64, after: u64| after as f64 - before as f64;
    let stalled = run.scenario.kinds.get(&Kind::Stalled).map_or(0.0, |part| part * run.scenario.sockets as f64);
    let mut resume = fast.resume_us.clone();
    all().for_each(|kind| resume.add(&kind.resume_us));
    // Whoever still sleeps or trickles at the end has not missed a goal: it waits for it.
    let goals = all().map(|kind| kind.goals_skipped).sum::<u64>() + fast.goals_missing_at_end;
    Outcome {
        connected: Some(run.connected.seen.open as f64 / run.scenario.sockets as f64),
        lost: Some(lost as f64),
        goals_lost: (run.scenario.publish.goal_every > 0).then_some(goals as f64),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        closed: Some(fast.ended as f64),
        refused: Some(run.tally.refused.values().sum::<u64>() as f64),
        rss_per_socket: has_server.then(|| grown(run.empty.server.rss, run.connected.server.rss) / sockets),
        rss_slope_bytes_per_s: has_server.then(|| slope(run)).flatten(),
        host_growth_per_stalled: (stalled >= 1.0).then(|| stalled_by(run, Sample::spent) / stalled),
        tcp_growth_per_stalled: (stalled >= 1.0).then(|| stalled_by(run, |sample| sample.host.tcp as f64) / stalled),
        cpu_us_per_delivery: cpu_us_per_delivery(run),
        floor_ratio: None,
        resume_p50_ms: (!resume.is_empty()).then(|| resume.at(0.5) as f64 / 1000.0),
        recover_seconds: run.recover_s,
        left: run.left.as_ref().map(|left| left.values().sum::<u64>() as f64),
        torn: sum(|kind| kind.torn),
        disordered: sum(|kind| kind.disordered),
        wrong: sum(|kind| kind.wrong),
    }
}

/// CPU of the server for each update that a client received, while ages counted, in microseconds.
pub fn cpu_us_per_delivery(run: &Measured) -> Option<f64> {
    let received = run.ended.seen.received.checked_sub(run.began.seen.received).filter(|count| *count > 0)?;
    let cpu_s = run.ended.server.cpu_s - run.began.server.cpu_s;
    (run.ended.server.rss > 0).then(|| cpu_s * 1e6 / received as f64)
}

/// By how much something has grown from all connected until stalled clients read again: the median of the last seconds,
/// for a single moment has much noise.
fn stalled_by(run: &Measured, what: impl Fn(&Sample) -> f64) -> f64 {
    const SECONDS: f64 = 5.5;
    let end_s = before_resume(run).at_s;
    let within = |sample: &&Sample| sample.at_s <= end_s && sample.at_s > end_s - SECONDS;
    let mut values: Vec<_> = run.samples.iter().filter(within).map(&what).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).map_or(0.0, |median| median - what(&run.connected))
}

/// The last sample before stalled clients read again; the end, if they never do.
pub fn before_resume(run: &Measured) -> &Sample {
    let resume = run.scenario.events.iter().filter(|event| event.what == Deed::Resume).map(|event| event.at).min();
    let Some(at) = resume else { return &run.ended };
    let until_s = run.began.at_s + f64::from(at);
    run.samples.iter().rev().find(|sample| sample.at_s < until_s).unwrap_or(&run.ended)
}

/// Slope of the server's resident memory over the second half of the measured time, in bytes a second (least squares).
fn slope(run: &Measured) -> Option<f64> {
    let half_s = (run.began.at_s + run.ended.at_s) / 2.0;
    let within = |sample: &&Sample| sample.at_s >= half_s && sample.at_s <= run.ended.at_s;
    let points: Vec<_> =
        run.samples.iter().filter(within).map(|sample| (sample.at_s, sample.server.rss as f64)).collect();
    let n = points.len() as f64;
    let (mean_x, mean_y) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let over: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let under: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    (points.len() >= 3).then(|| over / under)
}
