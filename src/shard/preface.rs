//! PROXY headers before requests: from whom one is awaited, what it changes, and what is refused.
//!
//! Promise: nobody's word but that of a trusted peer changes whose connection it is, and that only by a header that holds
//! to its last byte (`wire/proxy.rs`). `limits.request_timeout` is the time for header and request together.

use super::Shard;
use super::conn::Preface;
use crate::ids::ConnId;
use crate::metrics::EndReason;
use crate::sys::Ring;
use crate::wire::Refusal;
use crate::wire::proxy::{self, Fault, Introduced};

impl<R: Ring> Shard<R> {
    /// Reads the header that a trusted peer begins with: its length, or `None` while it is incomplete.
    pub(super) fn take_in_preface(&mut self, id: ConnId, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some((introduced, len)) = proxy::parse(bytes)? else { return Ok(None) };
        let (_, conn) = self.conns.at(id.slot.0);
        conn.preface = if introduced == Introduced::Proxy { Preface::Local } else { Preface::Given };
        if let Introduced::Client(client) = introduced {
            let proxy = self.conns.address(id);
            self.conns.name(id, client);
            tracing::debug!(%client, proxy = proxy.map(display), "passed on by a proxy");
        }
        Ok(Some(len))
    }

    /// A trusted peer has begun with something else, or with a header that does not hold.
    pub(super) fn refuse_preface(&mut self, id: ConnId, fault: Fault) {
        let why = match fault {
            Fault::Missing => "no PROXY header from a peer in proxy_protocol.trusted".to_owned(),
            fault => fault.to_string(),
        };
        let what = format!(
            "{fault}: this peer is in proxy_protocol.trusted, so each of its connections must begin with a PROXY header; \
             have it send one (HAProxy: send-proxy-v2), or take it off that list"
        );
        self.refuse_for_preface(id, &what, &why);
    }

    /// A header where the request should begin: forged, or of a proxy that nobody has listed, or a second one.
    pub(super) fn refuse_unasked_preface(&mut self, id: ConnId) {
        let (_, conn) = self.conns.at(id.slot.0);
        let (what, why) = match conn.preface {
            Preface::None => (
                "a PROXY header, and this peer is not in proxy_protocol.trusted: list it there if it is your proxy, else \
                 send none",
                "a PROXY header from a peer that is not in proxy_protocol.trusted",
            ),
            _ => ("a second PROXY header: have only the last proxy send one", "a second PROXY header"),
        };
        self.refuse_for_preface(id, what, why);
    }

    fn refuse_for_preface(&mut self, id: ConnId, what: &str, why: &str) {
        let refusal = Refusal::new(400, "proxy_header", what);
        self.answer_and_leave(id, refusal.response(), why, EndReason::ProxyHeader);
    }
}
