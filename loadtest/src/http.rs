//! As much HTTP/1.1 as an admin interface takes: one request after the other over a connection that is kept.

use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const BODY_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub struct Http {
    server: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Http {
    /// A client of that server; it connects when it is first asked.
    pub fn new(server: SocketAddr) -> Self {
        Self { server, connection: None }
    }

    /// Asks, and answers the body; once more over a new connection where the kept one has ended.
    ///
    /// # Errors
    /// The server cannot be reached, is too slow, or answers another status than 200 to 299.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let kept = self.connection.is_some();
        let answer = match self.try_to_ask(method, path, body) {
            Err(_) if kept => {
                self.connection = None;
                self.try_to_ask(method, path, body)
            }
            answer => answer,
        };
        if answer.is_err() {
            self.connection = None;
        }
        answer.with_context(|| format!("{method} http://{}{path}", self.server))
    }

    fn try_to_ask(&mut self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let stream = TcpStream::connect_timeout(&self.server, TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                none.insert(BufReader::new(stream))
            }
        };
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.server,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        connection.get_mut().write_all(&request)?;
        let (mut status, mut bytes, mut chunked, mut line) = (String::new(), 0, false, String::new());
        connection.read_line(&mut status)?;
        while connection.read_line(&mut line)? > 2 {
            let lower = line.to_ascii_lowercase();
            if let Some(len) = lower.strip_prefix("content-length:") {
                bytes = len.trim().parse().context("Content-Length is no number")?;
            }
            chunked |= lower.starts_with("transfer-encoding:") && lower.contains("chunked");
            line.clear();
        }
        let answer = if chunked { read_chunks(connection)? } else { read(connection, bytes)? };
        match status.split(' ').nth(1) {
            Some(code) if code.starts_with('2') => Ok(answer),
            _ => bail!("answered {:?}: {}", status.trim(), String::from_utf8_lossy(&answer).trim()),
        }
    }
}

fn read(from: &mut BufReader<TcpStream>, bytes: usize) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(bytes <= BODY_MAX, "the body is {bytes} bytes long");
    let mut body = vec![0; bytes];
    from.read_exact(&mut body)?;
    Ok(body)
}

fn read_chunks(from: &mut BufReader<TcpStream>) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let bytes = usize::from_str_radix(line.trim().split(';').next().unwrap_or(""), 16).context("a chunk's size")?;
        body.extend(read(from, bytes)?);
        let mut end = String::new();
        from.read_line(&mut end)?;
        if bytes == 0 {
            return Ok(body);
        }
    }
}
