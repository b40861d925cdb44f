//! A compare-and-swap of both clients of `fixtures/online-app`, while a v2 client and the job work between its steps.
//!
//! The client reads v2 through the test, which lets the others act before and after that read.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::etcdctl::Etcdctl;
use crate::common::http;
use crate::common::peers::{self, Version};
use crate::common::scratch;
use crate::common::server::{Boot, Server};
use crate::history::{Process, Programs, swap};
use crate::test_name;

const KEY: &str = "/app/k";

fn wait_for(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Answers one request for a key as v2 does, between two acts.
fn between(v2: SocketAddr, before: &dyn Fn(), after: &dyn Fn(), connection: &TcpStream) {
    let mut lines = BufReader::new(connection).lines();
    let request = lines.next().unwrap().unwrap();
    // A request of a read has no body.
    while !lines.next().unwrap().unwrap().is_empty() {}
    before();
    let answer = http::get(v2, request.split(' ').nth(1).unwrap()).unwrap();
    after();
    let head = format!("HTTP/1.1 {} X\r\nX-Etcd-Index: {}\r\n", answer.status, answer.header("X-Etcd-Index").unwrap());
    let head = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n", answer.body.len());
    (&mut &*connection).write_all(&[head.as_bytes(), &answer.body].concat()).unwrap();
}

#[test]
fn a_swap_does_not_bring_a_deleted_key_back() {
    let Some(peers) = peers::require(test_name!()) else { return };
    let programs = Programs::build(&peers);
    let temp = scratch::temp();
    let mut boot = Boot::new(&peers, Version::V3_4, &temp.path().join("etcd"));
    boot.enable_v2 = true;
    let server = Server::start(&boot);
    let (address, ctl) = (server.client_address(), Etcdctl::new(&peers, &server));
    let _job = crate::history::start_job(address, temp.path());
    let in_v3 = || ctl.all().0.iter().any(|row| row.key == KEY.as_bytes());
    wait_for("the job begins", || ctl.all().0.iter().any(|row| row.key == b"etcdlift/online/deleted"));
    for program in programs.both() {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut app = Process::start(program, &[address], &[proxy.local_addr().unwrap()]);
        let answer = thread::scope(|scope| {
            let asked = scope.spawn(move || swap(&mut app, KEY, "old", "new"));
            let mut first = true;
            proxy.set_nonblocking(true).unwrap();
            while !asked.is_finished() {
                let Ok((connection, _)) = proxy.accept() else {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                };
                connection.set_nonblocking(false).unwrap();
                let acts = std::mem::take(&mut first);
                let set = || {
                    if acts {
                        http::put_form(address, &format!("/v2/keys{KEY}"), "value=old").unwrap();
                        wait_for("the job copies", in_v3);
                    }
                };
                let delete = || {
                    if acts {
                        http::delete(address, &format!("/v2/keys{KEY}")).unwrap();
                        wait_for("the job deletes", || !in_v3());
                    }
                };
                between(address, &set, &delete, &connection);
            }
            asked.join().unwrap()
        });
        assert_eq!(answer, Some(None), "{program:?}: the key was deleted before the swap");
        assert!(!in_v3(), "{program:?}");
    }
}
