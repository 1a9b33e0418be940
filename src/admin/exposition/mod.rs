//! The metrics as text, by `prometheus-client`, from what is shown at the moment of a scrape: in OpenMetrics, or in
//! Prometheus's older text format for whoever does not ask for it.

mod reference;
mod scrape;
mod table;

pub use reference::reference;

use super::View;
use axum::http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use scrape::Scrape;
use std::borrow::Cow;
use std::fmt;
use table::{Kind, Metric, Value, metrics};

const OPEN_METRICS: &str = "application/openmetrics-text";
const TEXT: &str = "text/plain";

/// What the text is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// Prometheus's text format 0.0.4.
    Text,
}

impl Format {
    /// What a request asks for by its `Accept`: OpenMetrics only where it is named, and nothing is liked better.
    pub fn wanted(headers: &HeaderMap) -> Self {
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for accept in headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()) {
            for range in accept.split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                // RFC 9110, 5.6.6 and 12.4.2: the name's case means nothing.
                let weight = parts.find_map(|part| match part.split_once('=') {
                    Some((name, weight)) if name.eq_ignore_ascii_case("q") => weight.trim().parse::<f32>().ok(),
                    _ => None,
                });
                let weight = weight.filter(|weight| weight.is_finite()).unwrap_or(1.0);
                match kind.as_str() {
                    OPEN_METRICS => open_metrics = f32::max(open_metrics, weight),
                    TEXT | "text/*" | "*/*" => text = f32::max(text, weight),
                    _ => {}
                }
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// What the answer says that it is.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics as text.
///
/// # Errors
/// None that is known: the text is written into memory.
pub fn expose(view: &View, format: Format) -> Result<String, fmt::Error> {
    let name = view.server_id.clone().map(|name| (Cow::from("server_id"), Cow::from(name)));
    let mut registry = Registry::with_labels(name.into_iter());
    registry.register_collector(Box::new(Scrape::take(view)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Text => older(&text),
    })
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in metrics() {
            let samples = (metric.read)(self);
            if samples.is_empty() {
                continue; // this host does not have it
            }
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, metric.kind.into())?;
            for sample in &samples {
                match (metric.kind, sample.labels.as_slice()) {
                    (Kind::Info, labels) => family.encode_info(&labels)?,
                    (_, []) => write(&mut family, metric, &sample.value)?,
                    (_, labels) => write(&mut family.encode_family(&labels)?, metric, &sample.value)?,
                }
            }
        }
        Ok(())
    }
}

fn write(to: &mut MetricEncoder<'_>, metric: &Metric, value: &Value) -> fmt::Result {
    match (metric.kind, value) {
        (Kind::Counter, Value::Whole(value)) => to.encode_counter::<NoLabelSet, _, u64>(value, None),
        (Kind::Counter, Value::Real(value)) => to.encode_counter::<NoLabelSet, _, u64>(value, None),
        (_, Value::Whole(value)) => to.encode_gauge(value),
        (_, Value::Real(value)) => to.encode_gauge(value),
        (_, Value::Durations { sum_s, count, buckets }) => {
            to.encode_histogram::<NoLabelSet>(*sum_s, *count, buckets, None)
        }
    }
}

impl From<Kind> for MetricType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Gauge => Self::Gauge,
            Kind::Counter => Self::Counter,
            Kind::Histogram => Self::Histogram,
            Kind::Info => Self::Info,
        }
    }
}

/// OpenMetrics as Prometheus's older format: there a counter's head has the name that its samples have, an info is a
/// gauge, and nothing marks the end.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len() + 1024);
    for line in text.lines().filter(|line| *line != "# EOF") {
        let head = line.strip_prefix("# ").and_then(|head| {
            let (what, rest) = head.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            let metric = metrics().find(|metric| metric.name == name)?;
            Some((what, metric, rest))
        });
        match head {
            Some((what, metric, rest)) => {
                let rest = if (what, metric.kind) == ("TYPE", Kind::Info) { "gauge" } else { rest };
                older.extend(["# ", what, " ", metric.name, metric.kind.suffix(), " ", rest]);
            }
            None => older.push_str(line),
        }
        older.push('\n');
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn whoever_names_openmetrics_and_likes_nothing_better_gets_it() {
        // The first is what Prometheus 2.42 sends.
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, format) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text ; q=0.5 , text/plain;q=0.5", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.5,text/plain", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;Q=0", Format::Text),
            ("application/openmetrics-text;Q=0.1,text/plain;q=0.2", Format::Text),
            ("application/openmetrics-text;q=nan", Format::OpenMetrics),
            ("text/plain;version=0.0.4", Format::Text),
            ("*/*", Format::Text),
            ("image/png", Format::Text),
            ("", Format::Text),
            (";q=,,=", Format::Text),
        ] {
            let headers = [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect();
            assert_eq!(Format::wanted(&headers), format, "{accept}");
        }
        assert_eq!(Format::wanted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn the_older_format_names_counters_and_infos_as_their_samples() {
        let text = "# HELP ws_accept_errors A total.\n# TYPE ws_accept_errors counter\nws_accept_errors_total 3\n\
                    # HELP spillgate_build B.\n# TYPE spillgate_build info\nspillgate_build_info{version=\"1\"} 1\n\
                    # HELP ws_connections_max C.\n# TYPE ws_connections_max gauge\nws_connections_max 4\n# EOF\n";
        let expected = "# HELP ws_accept_errors_total A total.\n# TYPE ws_accept_errors_total counter\n\
                        ws_accept_errors_total 3\n# HELP spillgate_build_info B.\n# TYPE spillgate_build_info gauge\n\
                        spillgate_build_info{version=\"1\"} 1\n# HELP ws_connections_max C.\n\
                        # TYPE ws_connections_max gauge\nws_connections_max 4\n";
        assert_eq!(older(text), expected);
    }
}
