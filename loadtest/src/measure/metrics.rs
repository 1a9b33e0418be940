//! The gateway's own metrics.

use crate::http::Http;
use serde::Serialize;
use std::collections::BTreeMap;

/// Sums over all labels but `reason`, by name; those with a reason also as `name{reason}`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Metrics(pub BTreeMap<String, f64>);

impl Metrics {
    /// A metric, 0 if there is none of that name.
    pub fn of(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    fn parse(text: &str) -> Self {
        let mut all = BTreeMap::<String, f64>::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")) {
            let Some((key, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = key.split_once('{').unwrap_or((key, ""));
            *all.entry(name.to_owned()).or_default() += value;
            if let Some(reason) = labels.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next()) {
                all.insert(format!("{name}{{{reason}}}"), value);
            }
        }
        Self(all)
    }
}

/// Asks an admin interface.
///
/// # Errors
/// It does not answer.
pub fn scrape(admin: &mut Http) -> anyhow::Result<Metrics> {
    Ok(Metrics::parse(&String::from_utf8_lossy(&admin.ask("GET", "/metrics", b"")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels() {
        let text = "# HELP a x\na_total 3\nb_total{reason=\"closed\"} 1\nb_total{reason=\"left\"} 2\nc_bucket{le=\"1\"} 9\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!((metrics.of("a_total"), metrics.of("b_total"), metrics.of("b_total{left}")), (3.0, 3.0, 2.0));
        assert_eq!((metrics.of("c_bucket"), metrics.of("none")), (0.0, 0.0));
    }
}
