//! A server for tests, which answers each request as told. Must not know what is tested.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// What a server answers: the status, the index of the store, and a body that may end anywhere.
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) index: u64,
    pub(super) body: String,
}

/// Starts a server, and returns its URL. It has a connection for each request, and ends after the last answer.
pub(super) fn server(mut answer: impl FnMut(&str) -> Option<Answer> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let Some(target) = target(&mut stream) else { continue };
            let Some(Answer { status, index, body }) = answer(&target) else { return };
            let head = format!("HTTP/1.1 {status}\r\nX-Etcd-Index: {index}\r\nConnection: close\r\n");
            let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
            // The client may have gone.
            let _ = write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n");
        }
    });
    url
}

/// Returns the target of a request; `None` if the connection ends before.
fn target(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    Some(String::from_utf8(head).unwrap().split(' ').nth(1)?.to_string())
}

/// An event that sets the key `/k`.
pub(super) fn event(index: u64) -> String {
    format!(r#"{{"action":"set","node":{{"key":"/k","value":"v","modifiedIndex":{index},"createdIndex":{index}}}}}"#)
}
