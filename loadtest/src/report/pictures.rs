//! Pictures of a run, as PNG: how old updates were, and where memory went.

use crate::engine::Kind;
use crate::run::Measured;
use crate::scenario::show;
use anyhow::{Context, anyhow};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::{Path, PathBuf};
use std::sync::Once;

const SIZE: (u32, u32) = (1200, 700);
const COLOURS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(90, 90, 90),
];
const GREY: RGBColor = RGBColor(150, 150, 150);

/// A line of a picture.
pub struct Curve {
    /// Its name.
    pub name: String,
    /// Points.
    pub points: Vec<(f64, f64)>,
}

/// Ages of updates by percentile, a curve for each kind of client, and over time.
///
/// # Errors
/// A file cannot be written.
pub fn latencies(run: &Measured, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let percentiles: Vec<_> = Kind::ALL
        .into_iter()
        .zip(&run.tally.kinds)
        .filter(|(_, tally)| !tally.age_us.is_empty())
        .map(|(kind, tally)| {
            // Nines: 0 is the fastest, 1 is p90, 2 is p99, …
            let nines_max = (tally.age_us.len() as f64).log10().min(5.0);
            let points = (0..=100).map(|i| nines_max * f64::from(i) / 100.0);
            let points = points.map(|nines| (nines, tally.age_us.at(1.0 - 10f64.powf(-nines)).max(1) as f64 / 1000.0));
            Curve { name: kind.name().to_owned(), points: points.collect() }
        })
        .collect();
    let percentile = |nines: &f64| match *nines {
        n if n < 0.05 => "0".to_owned(),
        n if (n - n.round()).abs() < 0.01 => format!("p{}", (100.0 - 10f64.powf(2.0 - n.round())) as f32),
        _ => String::new(),
    };
    let mut files = Vec::new();
    if !percentiles.is_empty() {
        let file = directory.join("latency.png");
        let title =
            format!("{}, {}: age of updates at the client, from when they were due", run.scenario.name, run.target);
        draw(&file, &title, ("percentile", "milliseconds"), &percentiles, &[], true, &percentile)?;
        files.push(file);
    }
    let curve = |name: &str, value: fn(&crate::tally::Seen) -> u64| Curve {
        name: name.to_owned(),
        points: run
            .samples
            .iter()
            .filter(|sample| value(&sample.seen) > 0)
            .map(|sample| (sample.at_s, value(&sample.seen) as f64 / 1000.0))
            .collect(),
    };
    let slow =
        run.tally.kinds.iter().zip(Kind::ALL).any(|(tally, kind)| !kind.is_healthy() && !tally.age_us.is_empty());
    let mut over_time = vec![
        curve("fast: p50", |seen| seen.p50_us),
        curve("fast: p99", |seen| seen.p99_us),
        curve("fast: max", |seen| seen.max_us),
    ];
    if slow {
        over_time.push(curve("all others: p50", |seen| seen.slow_p50_us));
        over_time.push(curve("all others: p99", |seen| seen.slow_p99_us));
    }
    if over_time.iter().any(|curve| curve.points.len() > 1) {
        let file = directory.join("latency-over-time.png");
        let title = format!("{}, {}: age of updates in each second", run.scenario.name, run.target);
        draw(&file, &title, ("seconds", "milliseconds"), &over_time, &[], true, &seconds)?;
        files.push(file);
    }
    Ok(files)
}

/// Memory over time, by owner, with the number of clients that do not read beside it.
///
/// # Errors
/// A file cannot be written.
pub fn memory(run: &Measured, directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let empty = &run.empty.host;
    let curve = |name: &str, bytes: &dyn Fn(&crate::run::Sample) -> f64| Curve {
        name: name.to_owned(),
        points: run.samples.iter().map(|sample| (sample.at_s, bytes(sample) / 1e6)).collect(),
    };
    let kernel = |sample: &crate::run::Sample| sample.host.kernel as f64 - empty.kernel as f64;
    let curves = [
        curve(&format!("{}: resident", run.target), &|sample| sample.server.rss as f64),
        curve("clients: resident", &|sample| sample.clients.rss as f64),
        curve("kernel: all, since the start", &kernel),
        curve("kernel: TCP buffers", &|sample| sample.host.tcp as f64),
    ];
    let part = run.scenario.kinds.get(&Kind::Stalled).copied().unwrap_or(0.0);
    let stalled = run.samples.iter().map(|sample| (sample.at_s, part * sample.seen.open as f64)).collect();
    let stalled = [Curve { name: "clients that do not read".to_owned(), points: stalled }];
    let file = directory.join("memory.png");
    let title = format!("{}, {}: memory over time", run.scenario.name, run.target);
    let right: &[Curve] = if part > 0.0 { &stalled } else { &[] };
    draw(&file, &title, ("seconds", "MB"), &curves, right, false, &seconds)?;
    Ok(vec![file])
}

/// Memory over time of several servers in one picture.
///
/// # Errors
/// The file cannot be written.
pub fn memory_of(curves: &[Curve], title: &str, file: &Path) -> anyhow::Result<()> {
    draw(file, title, ("seconds", "MB"), curves, &[], false, &seconds)
}

fn seconds(at: &f64) -> String {
    format!("{at:.0}")
}

/// Lines over a plain axis, or one of powers of ten; those of `right` have an axis of their own.
fn draw(
    file: &Path,
    title: &str,
    (x_name, y_name): (&str, &str),
    left: &[Curve],
    right: &[Curve],
    powers: bool,
    x_label: &dyn Fn(&f64) -> String,
) -> anyhow::Result<()> {
    use_own_font()?;
    let place = |y: f64| if powers { y.max(0.001).log10() } else { y };
    let y_label = |y: &f64| show(if powers { 10f64.powf(*y) } else { *y });
    let placed = |curve: &Curve| curve.points.iter().map(|(x, y)| (*x, place(*y))).collect::<Vec<_>>();
    let points: Vec<_> = left.iter().flat_map(placed).collect();
    let x_max = points.iter().map(|p| p.0).fold(f64::EPSILON, f64::max);
    let x_min = points.iter().map(|p| p.0).fold(x_max, f64::min);
    let y_max = points.iter().map(|p| p.1).fold(f64::EPSILON, f64::max);
    let y_min = if powers { points.iter().map(|p| p.1).fold(y_max, f64::min) } else { 0.0 };
    let y_range = y_min - 0.02 * (y_max - y_min)..y_max + 0.25 * (y_max - y_min) + f64::EPSILON;
    let beside_max = right.iter().flat_map(|curve| &curve.points).map(|p| p.1).fold(1.0, f64::max) * 1.25;
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let area = BitMapBackend::new(file, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.caption(title, ("sans-serif", 24)).margin(16).x_label_area_size(48).y_label_area_size(84);
        builder.right_y_label_area_size(if right.is_empty() { 16 } else { 84 });
        let chart = builder.build_cartesian_2d(x_min..x_max, y_range)?;
        let mut chart = chart.set_secondary_coord(x_min..x_max, 0.0..beside_max);
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x_name).y_desc(y_name).x_label_formatter(&x_label).y_label_formatter(&y_label);
        mesh.light_line_style(RGBColor(240, 240, 240)).label_style(("sans-serif", 16)).draw()?;
        for (curve, colour) in left.iter().zip(COLOURS.into_iter().cycle()) {
            let drawn = chart.draw_series(LineSeries::new(placed(curve), colour.stroke_width(2)))?.label(&curve.name);
            drawn.legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(2)));
        }
        for curve in right {
            let line = LineSeries::new(curve.points.iter().copied(), GREY.stroke_width(2));
            let drawn = chart.draw_secondary_series(line)?.label(format!("{} (right)", curve.name));
            drawn.legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], GREY.stroke_width(2)));
            let (mut axis, label) = (chart.configure_secondary_axes(), |y: &f64| show(*y));
            axis.y_desc(&curve.name).y_label_formatter(&label).label_style(("sans-serif", 16)).draw()?;
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE.mix(0.85)).border_style(GREY);
        labels.label_font(("sans-serif", 16)).draw()?;
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| anyhow!("{error}")).with_context(|| format!("cannot draw {}", file.display()))
}

/// The font is part of the program: a bare host has none.
fn use_own_font() -> anyhow::Result<()> {
    static ONCE: Once = Once::new();
    let mut registered = Ok(());
    ONCE.call_once(|| {
        registered = register_font("sans-serif", FontStyle::Normal, ttf_noto_sans::REGULAR)
            .map_err(|_| anyhow!("the font of this program cannot be read"));
    });
    registered
}
