//! Rendered metrics, which are kept for a moment: whoever asks faster than anybody needs gets the last rendering again.
//!
//! Promise: a rendering that is given again is less than 1 / [`A_SECOND`] s old, and one that is asked for at the pace of
//! people and of Prometheus is always new.

use super::exposition::Format;
use crate::lifecycle::Allowance;
use axum::body::Bytes;
use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Renderings of a format a second, and at once. One takes 1 to 2 ms (docs/measurements.md, "What a scrape costs").
const A_SECOND: u32 = 20;
const AT_ONCE: u32 = 40;

/// The last rendering of each format.
#[derive(Debug)]
pub struct Pages([Mutex<Page>; 2]);

#[derive(Debug)]
struct Page {
    renderings: Allowance,
    last: Bytes,
}

impl Pages {
    /// Nothing rendered yet.
    pub fn new() -> Self {
        let page = || Mutex::new(Page { renderings: Allowance::new(A_SECOND, AT_ONCE), last: Bytes::new() });
        Self([page(), page()])
    }

    /// The metrics now (microseconds), or as they were just before.
    ///
    /// # Errors
    /// Those of `render`.
    pub fn show(
        &self,
        format: Format,
        now_us: u64,
        render: impl FnOnce() -> Result<String, fmt::Error>,
    ) -> Result<Bytes, fmt::Error> {
        let mut page = self.0[format as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if page.last.is_empty() || page.renderings.take(now_us) {
            page.last = render()?.into();
        }
        Ok(page.last.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_scrapes_costs_a_few_renderings_and_none_gets_an_old_one() {
        let (pages, mut renderings, mut made_us) = (Pages::new(), 0, 0);
        for now_us in (1_000_000..2_000_000).step_by(1000) {
            let shown = pages.show(Format::Text, now_us, || {
                (renderings, made_us) = (renderings + 1, now_us);
                Ok(now_us.to_string())
            });
            assert_eq!(shown.unwrap(), made_us.to_string());
            assert!(now_us - made_us <= 1_000_000 / u64::from(A_SECOND), "{now_us} {made_us}");
        }
        assert!(renderings <= A_SECOND + AT_ONCE + 1, "{renderings}");
        let other = pages.show(Format::OpenMetrics, 2_000_000, || Ok("another".into())).unwrap();
        assert_eq!(other, "another", "each format has its own");
    }

    #[test]
    fn who_scrapes_as_prometheus_does_always_gets_a_new_one() {
        let pages = Pages::new();
        for now_us in (1_000_000..100_000_000).step_by(100_000) {
            assert_eq!(pages.show(Format::Text, now_us, || Ok(now_us.to_string())).unwrap(), now_us.to_string());
        }
    }
}
