//! PROXY headers before requests: from whom one is awaited, what it changes, and what is refused.
//!
//! Promise: nobody's word but that of a trusted peer changes whose connection it is, and that only by a header that holds
//! to its last byte (`wire/proxy.rs`). `limits.request_timeout` is the time for header and request together.
//!
//! Promise: a proxy that looks whether we are here is answered, if it asks, and neither told of nor counted as a client that
//! was refused or has vanished. A full shard is not a sick one: a load balancer that took it for sick might end all of the
//! connections that it holds (an AWS NLB does so by default), so checks are answered there as anywhere.

use super::Shard;
use super::conn::{Kept, Preface, State};
use crate::ids::ConnId;
use crate::metrics::EndReason;
use crate::sys::Ring;
use crate::wire::proxy::{self, Fault, Introduced};
use crate::wire::{self, Refusal};

impl<R: Ring> Shard<R> {
    /// Reads the header that a trusted peer begins with: its length, or `None` while it is incomplete.
    pub(super) fn take_in_preface(&mut self, id: ConnId, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        let Some((introduced, len)) = proxy::parse(bytes)? else { return Ok(None) };
        let proxy = self.conns.address(id);
        let (_, conn) = self.conns.at(id.slot.0);
        conn.preface = match introduced {
            // Version 1 has no LOCAL: HAProxy 2.6 names its own end of this very connection.
            Introduced::Client(client) if Some(client) == proxy && bytes.starts_with(b"PROXY") => Preface::Local,
            Introduced::Client(_) => Preface::Given,
            Introduced::Nobody => Preface::Nameless,
            Introduced::Proxy => Preface::Local,
        };
        if let (Preface::Given, Introduced::Client(client)) = (conn.preface, introduced) {
            self.conns.name(id, client);
            tracing::debug!(%client, proxy = proxy.map(display), "passed on by a proxy");
        }
        Ok(Some(len))
    }

    /// Whether there is still no place for who came when there was none.
    pub(super) fn is_beyond(&mut self, id: ConnId) -> bool {
        let full = self.is_full();
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.outside && !full {
            conn.outside = false;
            self.outside_count -= 1;
        }
        let (_, conn) = self.conns.at(id.slot.0);
        conn.outside
    }

    /// Answers a whole request of a proxy's own, if that is to look whether we are here, and says whether it was.
    pub(super) fn answer_check(&mut self, id: ConnId, request: &[u8]) -> bool {
        let (_, conn) = self.conns.at(id.slot.0);
        let may_check = match conn.preface {
            Preface::Local => true,
            Preface::Nameless => request.starts_with(b"OPTIONS "), // it may be a browser's, which wants the page
            _ => false,
        };
        let Some(answer) = Some(request).filter(|_| may_check).and_then(wire::check_response) else { return false };
        self.answer_and_leave(id, answer, "", EndReason::HealthCheck);
        true
    }

    /// Whether the end of a connection is that of a proxy's health check, and no client's.
    pub(super) fn is_check(&mut self, id: ConnId, reason: EndReason) -> bool {
        let (_, conn) = self.conns.at(id.slot.0);
        if conn.state != State::Request {
            return false;
        }
        let silent = matches!(conn.kept, Kept::Nothing);
        let went = matches!(reason, EndReason::Vanished | EndReason::SocketError);
        match conn.preface {
            Preface::None | Preface::Given => false,
            // A trusted peer that goes without a byte: a check that only connects.
            Preface::Awaited => silent && went,
            Preface::Nameless => silent && (went || reason == EndReason::RequestTimeout),
            Preface::Local => !matches!(reason, EndReason::ProxyHeader | EndReason::Shutdown),
        }
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
