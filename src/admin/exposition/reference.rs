//! docs/metrics.md, written from the table of metrics.

use super::table::{Kind, Metric, SECTIONS};
use crate::metrics::{DropReason, EndReason};
use std::fmt::Write;

const HEAD: &str = "\
# Metrics

What `GET /metrics` of the admin interface tells: OpenMetrics where the request's `Accept` names it (Prometheus does), else
Prometheus's text format 0.0.4. Generated from the code: `UPDATE_DOCS=1 cargo test --test docs` writes it, and that test
holds it.

- With `server_id` set, every metric has the label `server_id`.
- Shards keep plain counters of their own and show them once a turn; a scrape reads what is shown, and no shard waits for it.
  Histograms are shown twice a second.
- \"In the last minute\" is a sliding one that moves in steps of 5 s (60 to 65 s; since the start, where that is less), so that
  several who scrape do not take it from each other.
- \"Sampled\" is what a thread of its own asks the kernel for by sock_diag every 5 s, or less often: it uses at most 2 % of a
  core, and `ws_kernel_sample_age_seconds` says how old it is. Where the kernel or a sandbox forbids it (systemd:
  `RestrictAddressFamilies=` needs `AF_NETLINK`), these metrics are missing, and the log says so.
- What a host does not have (a control group with a limit, say) is missing.
- Who asks for a format more often than 20 times a second (40 at once) gets its last rendering again, less than 50 ms old: a
  flood of scrapes costs no more than 20 a second.
- In every scrape `ws_messages_due_total` = delivered + conflated + dropped + `ws_outbox_messages`.
- Alerts on these are in [tuning/alerts.yml](../tuning/alerts.yml); what to do about each is in
  [operations.md](operations.md).
";

/// The text of docs/metrics.md.
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    // Writing to a `String` cannot fail; the results are let go.
    for (head, metrics) in SECTIONS {
        let _ = write!(text, "\n## {head}\n\n| metric | kind | labels | |\n| --- | --- | --- | --- |\n");
        for metric in *metrics {
            let Metric { name, kind, labels, help, .. } = metric;
            let (suffix, kind) = (kind.suffix(), word(*kind));
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(text, "| `{name}{suffix}` | {kind} | {} | {help} |", labels.join(", "));
        }
    }
    let ends = EndReason::ALL.iter().map(|reason| {
        let refusal = if reason.is_refusal() { " A refusal." } else { "" };
        (reason.label(), format!("{}{refusal}", reason.sentence()))
    });
    reasons("Reasons for which connections end", ends, &mut text);
    let drops = DropReason::ALL.iter().map(|reason| (reason.label(), reason.sentence().to_owned()));
    reasons("Reasons for which updates are dropped", drops, &mut text);
    text
}

fn reasons(head: &str, reasons: impl Iterator<Item = (&'static str, String)>, text: &mut String) {
    let _ = write!(text, "\n## {head}\n\n| `reason` | |\n| --- | --- |\n");
    for (label, sentence) in reasons {
        let _ = writeln!(text, "| `{label}` | {sentence} |");
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
        Kind::Info => "info",
    }
}
