//! What the log says of single connections: who came, and who was turned away or closed by us, and why.
//!
//! Promise: of what a client can cause at will there are few lines a second (`lifecycle/lines.rs`; the counters have the
//! whole), none holds anything that a client has sent, and a proxy's health check makes none.

use super::Shard;
use super::conn::Preface;
use crate::ids::ConnId;
use crate::metrics::EndReason;
use crate::sys::Ring;
use std::net::SocketAddr;
use tracing::field::{DisplayValue, display};

impl<R: Ring> Shard<R> {
    /// Somebody has opened a WebSocket.
    pub(super) fn tell_open(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        let face = conn.face();
        let (client, proxy) = self.whose(id);
        tracing::debug!(client, proxy, ?face, "connected");
    }

    /// The client's address, or that of a proxy which has not said for whom it is.
    fn whose(&mut self, id: ConnId) -> (Option<DisplayValue<SocketAddr>>, Option<DisplayValue<SocketAddr>>) {
        let (_, conn) = self.conns.at(id.slot.0);
        let named = matches!(conn.preface, Preface::None | Preface::Given);
        let address = self.conns.address(id).map(display);
        if named { (address, None) } else { (None, address) }
    }

    /// A connection ends, for the reason that comes back.
    pub(super) fn tell_end(&mut self, id: ConnId, why: &str, reason: EndReason) -> EndReason {
        if reason == EndReason::HealthCheck || self.is_check(id, reason) {
            return EndReason::HealthCheck;
        }
        let (client, proxy) = self.whose(id);
        let (label, why) = (reason.label(), Some(why).filter(|why| !why.is_empty() && *why != reason.label()));
        if !is_told(reason) {
            tracing::debug!(client, proxy, reason = label, why, "ended");
        } else if let Some(kept_back) = self.lines[reason as usize].take(self.now_us) {
            let kept_back = Some(kept_back).filter(|lines| *lines > 0);
            tracing::info!(client, proxy, reason = label, why, kept_back, "closed");
        }
        reason
    }
}

/// Whether operators want to know: we closed it, and it, or we, are at fault.
fn is_told(reason: EndReason) -> bool {
    match reason {
        EndReason::RequestRefused
        | EndReason::RequestTimeout
        | EndReason::ProxyHeader
        | EndReason::Full
        | EndReason::ProtocolError
        | EndReason::MessageTooBig
        | EndReason::PartialBudget
        | EndReason::SlowConsumer => true,
        EndReason::ClientClosed
        | EndReason::Vanished
        | EndReason::SocketError
        | EndReason::PingTimeout
        | EndReason::Shutdown
        | EndReason::Served
        | EndReason::HealthCheck => false,
    }
}
