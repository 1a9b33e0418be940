//! The table that a run ends with.

use crate::engine::Kind;
use crate::run::{Measured, population};
use crate::scenario::{Unmet, show};

/// Prints everything that a reader wants to know first.
pub fn print(run: &Measured, floor: Option<&Measured>, unmet: &[Unmet]) {
    let scenario = &run.scenario;
    println!("\n{} against {}: {}", scenario.name, run.target, scenario.about);
    print_columns(&kinds(run));
    println!();
    print_columns(&figures(run, floor));
    for (what, map) in [("connections that failed", &run.tally.failed), ("ends by kind and cause", &run.tally.closes)] {
        if !map.is_empty() {
            let list: Vec<_> = map.iter().map(|(name, count)| format!("{name}: {count}")).collect();
            println!("{what}: {}", list.join(", "));
        }
    }
    if !run.tally.refused.is_empty() {
        println!("handshakes refused, by status: {:?}", run.tally.refused);
    }
    println!();
    match unmet {
        [] => println!("every expectation holds"),
        some => some.iter().for_each(|unmet| println!("NOT MET: {}", unmet.0)),
    }
}

/// Prints rows with aligned columns: the first to the left, all others to the right.
pub fn print_columns(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cell = |(i, text): (usize, &String)| {
            let pad = " ".repeat(widths[i].saturating_sub(text.chars().count()));
            let last = i + 1 == columns && text.contains(' '); // a sentence
            if i == 0 || last { format!("{text}{pad}") } else { format!("{pad}{text}") }
        };
        println!("{}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn kinds(run: &Measured) -> Vec<Vec<String>> {
    let head = ["clients", "number", "received", "skipped", "missing", "ended", "p50 ms", "p99 ms", "p99.9", "max ms"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let population = population(&run.scenario);
    for (kind, tally) in Kind::ALL.into_iter().zip(&run.tally.kinds) {
        let Some(number) = population.get(kind.name()) else { continue };
        let ms = |us: u64| if tally.age_us.is_empty() { "-".to_owned() } else { show(us as f64 / 1000.0) };
        let count = |count: u64| show(count as f64);
        let mut row = vec![kind.name().to_owned(), count(*number), count(tally.received)];
        row.extend([count(tally.skipped), count(tally.missing_at_end), count(tally.ended)]);
        row.extend([0.5, 0.99, 0.999].map(|quantile| ms(tally.age_us.at(quantile))));
        row.push(ms(tally.age_us.max()));
        rows.push(row);
    }
    rows
}

fn figures(run: &Measured, floor: Option<&Measured>) -> Vec<Vec<String>> {
    let outcome = &run.outcome;
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let mb = |bytes: f64| format!("{} MB", show(bytes / 1e6));
    let (connected, ended) = (&run.connected, &run.ended);
    let sockets = connected.seen.open.max(1) as f64;
    row("connected", format!("{} in {} s", show(connected.seen.open as f64), show(run.connect_s)));
    row(
        "published (latest by)",
        format!("{} ({} ms)", show(run.published as f64), show(run.publisher_late_max_us as f64 / 1e3)),
    );
    let seconds = (ended.at_s - run.began.at_s).max(0.001);
    let received = ended.seen.received.saturating_sub(run.began.seen.received);
    row("deliveries a second", show(received as f64 / seconds));
    if let Some(us) = outcome.cpu_us_per_delivery {
        row("CPU of the server for a delivery", format!("{} us", show(us)));
        row(
            "CPU of the server",
            format!("{} % of a core", show((ended.server.cpu_s - run.began.server.cpu_s) / seconds * 100.0)),
        );
        row("the server's memory: empty", mb(run.empty.server.rss as f64));
        row("the server's memory: connected", mb(connected.server.rss as f64));
        row("the server's memory: at the end", mb(ended.server.rss as f64));
    }
    if let (Some(floor), Some(ratio)) = (floor, outcome.floor_ratio) {
        row("the floor's CPU for a delivery", format!("{} us", show(floor.outcome.cpu_us_per_delivery.unwrap_or(0.0))));
        row("over the floor", format!("{} times", show(ratio)));
    }
    if let Some(bytes) = outcome.rss_per_socket {
        row("the server's memory for a socket", format!("{} bytes", show(bytes)));
    }
    if let Some(slope) = outcome.rss_slope_bytes_per_s {
        row("the server's memory, slope", format!("{} bytes/s", show(slope)));
    }
    let clients = connected.clients.rss as f64;
    row("the clients' memory for a socket", format!("{} bytes", show(clients / sockets)));
    let kernel = connected.host.kernel as f64 - run.empty.host.kernel as f64;
    row("the kernel's memory for a pair of sockets", format!("{} bytes", show(kernel / sockets)));
    let tcp = |bytes: u64| mb(bytes as f64);
    row("TCP buffers: connected, at the end", format!("{}, {}", tcp(connected.host.tcp), tcp(ended.host.tcp)));
    row("growth since connected: server", mb(ended.server.rss as f64 - connected.server.rss as f64));
    row("growth since connected: kernel", mb(ended.host.kernel as f64 - connected.host.kernel as f64));
    if let Some(bytes) = outcome.tcp_growth_per_stalled {
        row("growth of TCP buffers for a stalled socket", format!("{} bytes", show(bytes)));
    }
    if let Some(bytes) = outcome.host_growth_per_stalled {
        row("growth of the host's memory for a stalled socket", format!("{} bytes", show(bytes)));
    }
    if let Some(ms) = outcome.resume_p50_ms {
        row("reading again to newest state, median", format!("{} ms", show(ms)));
        let all = run.tally.kinds.iter();
        let (resumed, stale) = all.fold((0, 0), |(n, b), kind| (n + kind.resume_us.len(), b + kind.stale_bytes));
        row("old data read before it", format!("{} bytes", show(stale as f64 / resumed.max(1) as f64)));
    }
    if let Some(goals) = outcome.goals_lost {
        let got: u64 = run.tally.kinds.iter().map(|kind| kind.goals).sum();
        row("goals received, missed", format!("{}, {}", show(got as f64), show(goals)));
    }
    if let Some(seconds) = outcome.recover_seconds {
        row("all were back after", format!("{} s", show(seconds)));
    }
    if let Some(left) = &run.left {
        let list: Vec<_> = left.iter().map(|(name, count)| format!("{name}: {count}")).collect();
        row("held when all clients were gone", if list.is_empty() { "nothing".to_owned() } else { list.join(", ") });
    }
    let metrics = &run.last.metrics;
    if metrics.of("ws_messages_due_total") > 0.0 {
        let names = ["due_total", "delivered_total", "conflated_total", "dropped_total"];
        let counts = names.map(|name| show(metrics.of(&format!("ws_messages_{name}"))));
        row("gateway: due, delivered, conflated, dropped", counts.join(", "));
    }
    rows
}
