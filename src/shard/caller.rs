//! Who each connection is: the address of the client, or of the proxy until that has said for whom it is.
//!
//! Promise: an IPv4 address costs a connection no memory at all (it fits into what alignment left free), an IPv6 one 18
//! bytes in a table beside; both are kept for the connection's whole life, for the lines that the log has about it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A connection's address, or its place in [`Callers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Not known: nobody sits in the slot, or the kernel did not say.
    #[default]
    Unknown,
    /// An IPv4 address and its port.
    V4([u8; 4], u16),
    /// An IPv6 address, by its place.
    V6(u32),
}

const _: () = assert!(size_of::<Caller>() == 8, "it was to fit into what a connection has free");

/// The IPv6 addresses of a shard's connections.
#[derive(Debug, Default)]
pub struct Callers {
    table: Vec<([u8; 16], u16)>,
    free: Vec<u32>,
}

impl Callers {
    /// Notes an address. An IPv4 one that comes mapped into IPv6 is an IPv4 one.
    pub fn note(&mut self, address: SocketAddr) -> Caller {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => Caller::V4(ip.octets(), address.port()),
            IpAddr::V6(ip) => {
                let entry = (ip.octets(), address.port());
                let Some(place) = self.free.pop() else {
                    self.table.push(entry);
                    return Caller::V6(self.table.len() as u32 - 1);
                };
                self.table[place as usize] = entry;
                Caller::V6(place)
            }
        }
    }

    /// The address.
    pub fn address(&self, caller: Caller) -> Option<SocketAddr> {
        match caller {
            Caller::Unknown => None,
            Caller::V4(ip, port) => Some((Ipv4Addr::from(ip), port).into()),
            Caller::V6(place) => {
                let (ip, port) = self.table[place as usize];
                Some((Ipv6Addr::from(ip), port).into())
            }
        }
    }

    /// Gives the place back, of whoever has gone or has another address by now.
    pub fn forget(&mut self, caller: Caller) {
        if let Caller::V6(place) = caller {
            self.free.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_what_was_noted_and_places_are_used_again() {
        let mut callers = Callers::default();
        let mut note = |text: &str| callers.note(text.parse().unwrap());
        let (four, mapped) = (note("192.0.2.1:65535"), note("[::ffff:192.0.2.2]:1"));
        let (one, two) = (note("[2001:db8::1]:80"), note("[::1]:0"));
        assert_eq!((mapped, callers.table.len()), (Caller::V4([192, 0, 2, 2], 1), 2));
        for (caller, text) in [(four, "192.0.2.1:65535"), (one, "[2001:db8::1]:80"), (two, "[::1]:0")] {
            assert_eq!(callers.address(caller).unwrap().to_string(), text);
        }
        [four, one].into_iter().for_each(|caller| callers.forget(caller));
        let three = callers.note("[2001:db8::3]:3".parse().unwrap());
        assert_eq!((three, callers.table.len()), (one, 2));
        assert_eq!(callers.address(three).unwrap().to_string(), "[2001:db8::3]:3");
        assert_eq!(callers.address(Caller::Unknown), None);
    }
}
