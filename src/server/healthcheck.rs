//! `spillgate healthcheck`: asks a running gateway for `/healthz`, because an image has no curl.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long connecting, and each wait for a part of the answer, may take.
const WAIT_MAX: Duration = Duration::from_secs(3);
/// An answer is a line; what is longer is not ours.
const ANSWER_BYTES_MAX: u64 = 8 << 10;

/// Prints what the gateway with this admin address says; success if it works.
pub fn run(admin: SocketAddr) -> ExitCode {
    let (text, code) = match ask(admin) {
        Ok((200, text)) => (text, ExitCode::SUCCESS),
        Ok((status, text)) => (format!("{status}: {text}"), ExitCode::FAILURE),
        Err(error) => (format!("no answer from the admin interface at {admin}: {error}"), ExitCode::FAILURE),
    };
    let _ = writeln!(io::stdout(), "{}", text.trim_end()); // whoever does not read has the exit code
    code
}

/// Status and body.
fn ask(admin: SocketAddr) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&reachable(admin), WAIT_MAX)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::other("it does not speak HTTP"))
}

/// Where a process of this host reaches an address that is listened on: not at `0.0.0.0`.
fn reachable(admin: SocketAddr) -> SocketAddr {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, admin.port())
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else { return None };
    Some((response.code?, String::from_utf8_lossy(&answer[head..]).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_its_status_and_its_body_and_anything_else_is_none() {
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nok\n"), Some((200, "ok\n".to_owned())));
        assert_eq!(parse(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), Some((503, String::new())));
        for text in ["", "HTTP/1.1 200 OK\r\n", "+PONG\r\n", "\0"] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_address_that_means_all_is_asked_at_loopback() {
        for (admin, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2"), ("[::2]:3", "[::2]:3")]
        {
            assert_eq!(reachable(admin.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
