//! HTTP 1.1 on one connection that stays open, and requests of the v2 API.
//!
//! Tests that send thousands of requests to a real etcd use it. Shares no code with etcdlift.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::http::{Response, escape_path};

/// A request of the v2 keys API.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    /// The key, as bytes.
    pub(crate) path: Vec<u8>,
    pub(crate) parameters: Vec<(&'static str, Vec<u8>)>,
    /// Sends a slash inside the key as `%2F`, which means the same.
    pub(crate) escaped_slash: bool,
}

impl Call {
    pub(crate) fn new(method: &'static str, path: &[u8]) -> Self {
        Self { method, path: path.to_vec(), parameters: Vec::new(), escaped_slash: false }
    }

    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.parameters.push((name, value.into()));
        self
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&[u8]> {
        let mut parameters = self.parameters.iter();
        parameters.find(|(key, _)| *key == name).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn says(&self, name: &str) -> bool {
        self.parameter(name) == Some(b"true")
    }

    /// The request line's target, and the body.
    fn encode(&self) -> (String, String) {
        let form: Vec<String> =
            self.parameters.iter().map(|(name, value)| format!("{name}={}", escape_path(value))).collect();
        let form = form.join("&");
        let mut path = escape_path(&self.path);
        if self.escaped_slash
            && let Some(at) = path.rfind('/').filter(|at| *at > 0)
        {
            path.replace_range(at..=at, "%2F");
        }
        // Go reads the body of a PUT or POST only.
        if matches!(self.method, "PUT" | "POST") {
            (format!("/v2/keys{path}"), form)
        } else {
            (format!("/v2/keys{path}?{form}"), String::new())
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    server: SocketAddr,
    stream: BufReader<TcpStream>,
    /// Requests sent.
    pub(crate) asked: u64,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut connection = Self { server, stream: BufReader::new(stream), asked: 0 };
        // The server tells protocols apart by the first line of a connection, and drops one that is longer than 4096
        // bytes.
        connection.ask(&Call::new("GET", b"/"))?;
        Ok(connection)
    }

    pub(crate) fn ask(&mut self, call: &Call) -> io::Result<Response> {
        self.asked += 1;
        let (target, body) = call.encode();
        let request = format!(
            "{} {target} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            call.method,
            self.server,
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.response()
    }

    fn response(&mut self) -> io::Result<Response> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| bad(&line))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(&line))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response { status, headers, body: Vec::new() };
        response.body = match response.header("Content-Length") {
            Some(length) => self.bytes(length.parse().map_err(|_| bad(length))?)?,
            None if response.header("Transfer-Encoding") == Some("chunked") => self.chunks()?,
            None => return Err(bad("a response without a length")),
        };
        Ok(response)
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(&line, 16).map_err(|_| bad(&line))?;
            body.extend(self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    fn bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.strip_suffix(b"\r\n").unwrap_or(&line);
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP response: {what}"))
}
