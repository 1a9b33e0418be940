//! By POST: the publish API of a gateway, or of a peer that has one.

use super::Outlet;
use crate::http::Http;
use anyhow::Context;

/// See the module.
pub struct Post {
    http: Http,
    /// Path and query, with `{channel}`.
    path: String,
}

impl Post {
    /// To `http://address:port/path` with `{channel}`.
    ///
    /// # Errors
    /// It is not such a URL.
    pub fn to(url: &str) -> anyhow::Result<Self> {
        let wrong = || format!("{url:?} is no URL to publish to; write http://127.0.0.1:8080/publish/{{channel}}");
        let rest = url.strip_prefix("http://").with_context(wrong)?;
        let (server, path) = rest.split_once('/').with_context(wrong)?;
        Ok(Self { http: Http::new(server.parse().with_context(wrong)?), path: format!("/{path}") })
    }
}

impl Outlet for Post {
    fn publish(&mut self, updates: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        for (channel, payload) in updates {
            self.http.ask("POST", &self.path.replace("{channel}", channel), payload)?;
        }
        Ok(())
    }
}
