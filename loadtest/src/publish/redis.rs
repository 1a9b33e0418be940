//! By Redis PUBLISH: a batch is one pipeline, answered by Redis alone.

use super::Outlet;
use anyhow::Context;

/// See the module.
pub struct Redis(redis::Connection);

impl Redis {
    /// Connects to `redis://host:port`.
    ///
    /// # Errors
    /// The address makes no sense, or nobody answers there.
    pub fn connect(url: &str) -> anyhow::Result<Self> {
        let client = redis::Client::open(url).with_context(|| format!("{url:?} is no address of a Redis"))?;
        Ok(Self(client.get_connection().with_context(|| format!("no Redis answers at {url}"))?))
    }
}

impl Outlet for Redis {
    fn publish(&mut self, updates: &[(String, Vec<u8>)]) -> anyhow::Result<()> {
        let mut pipe = redis::pipe();
        for (channel, payload) in updates {
            pipe.cmd("PUBLISH").arg(channel).arg(&payload[..]).ignore();
        }
        Ok(pipe.query::<()>(&mut self.0)?)
    }
}
