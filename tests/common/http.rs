//! One HTTP request to a server on this machine, without a library.
//!
//! It opens a connection for each request; `peers/connection.rs` keeps one open.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// GET in HTTP 1.0, which rules out chunks and ends with the connection.
pub fn get(server: SocketAddr, target: &str) -> io::Result<Response> {
    ask(server, &format!("GET {target} HTTP/1.0\r\nHost: {server}\r\n\r\n"))
}

/// POST of JSON, with a token where one is given, as etcd's gateway to its v3 API takes it.
pub fn post(server: SocketAddr, target: &str, token: Option<&str>, json: &str) -> io::Result<Response> {
    let token = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let head = format!("POST {target} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\n{token}");
    ask(server, &format!("{head}Content-Length: {}\r\n\r\n{json}", json.len()))
}

/// PUT of JSON.
pub fn put(server: SocketAddr, target: &str, json: &str) -> io::Result<Response> {
    put_as(server, target, "application/json", json)
}

/// PUT of a form, as the v2 API takes keys.
pub fn put_form(server: SocketAddr, target: &str, form: &str) -> io::Result<Response> {
    put_as(server, target, "application/x-www-form-urlencoded", form)
}

/// DELETE.
pub fn delete(server: SocketAddr, target: &str) -> io::Result<Response> {
    ask(server, &format!("DELETE {target} HTTP/1.0\r\nHost: {server}\r\n\r\n"))
}

fn put_as(server: SocketAddr, target: &str, kind: &str, body: &str) -> io::Result<Response> {
    let head = format!("PUT {target} HTTP/1.0\r\nHost: {server}\r\nContent-Type: {kind}\r\n");
    ask(server, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn ask(server: SocketAddr, request: &str) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP response"))
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    Some(Response { status, headers: headers.collect(), body: bytes[end + 4..].to_vec() })
}

/// A key in the form of a URL: every byte that could mean something else is
/// escaped, slashes are not.
pub fn escape_path(path: &[u8]) -> String {
    let mut escaped = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'_' | b'-' | b'~' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
