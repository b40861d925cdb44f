//! What an error of the client means: whether to try again, and the words for the operator.
//!
//! etcd has texts and gRPC codes; the texts decide, because old releases use one code for many faults. Must not know
//! requests.

use std::error::Error as StdError;

use etcd_client::Error as Client;

use crate::error::{Error, Reason};

/// What to do after a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Try again, at another endpoint: it can pass.
    Again,
    /// Log in again, and try again.
    LogIn,
    /// Go on without a user: the cluster asks for none.
    WithoutUser,
    /// Give up.
    GiveUp,
}

/// A failed request.
#[derive(Debug)]
pub(super) struct Fault {
    /// What to do.
    pub(super) then: Then,
    /// The error for the operator.
    pub(super) error: Error,
    /// Whether no connection was made.
    pub(super) unconnected: bool,
}

/// The code of gRPC for a fault that can pass.
const UNAVAILABLE: i32 = 14;
const DEADLINE: i32 = 4;
const CANCELLED: i32 = 1;

/// Judges an error of the client.
pub(super) fn judge(error: &Client) -> Fault {
    match error {
        Client::GRpcStatus(status) => of_status(status.code() as i32, status.message(), &causes(status)),
        Client::TransportError(e) => of_transport(&chain(e)),
        Client::IoError(e) => of_transport(&chain(e)),
        Client::InvalidUri(e) => Fault::new(Then::GiveUp, Reason::Usage, format!("wrong endpoint: {e}")),
        Client::InvalidArgs(e) => Fault::new(Then::GiveUp, Reason::Usage, format!("wrong endpoint: {e}")),
        Client::LeaseKeepAliveError(e) => Fault::new(Then::GiveUp, Reason::LeaseGone, e.clone()),
        other => Fault::new(Then::Again, Reason::Unreachable, other.to_string()),
    }
}

/// The fault of a request without an answer.
pub(super) fn timed_out() -> Fault {
    Fault::new(Then::Again, Reason::Unreachable, "no answer in time")
}

/// A text of etcd, what to do after it, its reason, and the hint.
type Known = (&'static str, Then, Reason, &'static str);

const KNOWN: [Known; 17] = [
    ("authentication failed", Then::GiveUp, Reason::LoginFailed, "check --user and the password"),
    ("user name is empty", Then::GiveUp, Reason::LoginFailed, "the cluster asks for a user: give --user"),
    ("user name not found", Then::GiveUp, Reason::LoginFailed, "check --user"),
    ("authentication is not enabled", Then::WithoutUser, Reason::LoginFailed, "leave out --user"),
    ("invalid auth token", Then::LogIn, Reason::LoginFailed, "check --user and the password"),
    ("revision of auth store is old", Then::LogIn, Reason::LoginFailed, "run the command again"),
    ("permission denied", Then::GiveUp, Reason::V3Denied, DENIED),
    ("database space exceeded", Then::GiveUp, Reason::NoSpace, SPACE),
    ("request is too large", Then::GiveUp, Reason::RequestTooLarge, LARGE),
    ("message larger than max", Then::GiveUp, Reason::RequestTooLarge, LARGE),
    ("too many operations", Then::GiveUp, Reason::RequestTooLarge, "give the server's --max-txn-ops here too"),
    ("lease not found", Then::GiveUp, Reason::LeaseGone, "run the command again"),
    ("too many requests", Then::Again, Reason::Unreachable, "lower --in-flight or --rate-limit"),
    ("leader changed", Then::Again, Reason::Unreachable, MAJORITY),
    ("no leader", Then::Again, Reason::Unreachable, MAJORITY),
    ("request timed out", Then::Again, Reason::Unreachable, MAJORITY),
    ("corrupt", Then::GiveUp, Reason::V3Failed, "the cluster has a CORRUPT alarm: `etcdctl alarm list` shows it"),
];

const DENIED: &str = "the user needs the right to read and write all migrated keys, the switch key and the state prefix: \
                      simplest is the role `root`";
const SPACE: &str = "the cluster has a NOSPACE alarm: compact and defragment it or raise --quota-backend-bytes, then \
                     `etcdctl alarm disarm`, and run the command again: it goes on where it was";
const LARGE: &str = "give the server's --max-request-bytes as --request-limit";
const MAJORITY: &str = "check that a majority of the members runs: `etcdctl endpoint status --cluster`";

fn of_status(code: i32, message: &str, causes: &str) -> Fault {
    if let Some((_, then, reason, hint)) = KNOWN.iter().find(|(text, ..)| message.contains(text)) {
        let text = message.trim_start_matches("etcdserver: ").to_string();
        let mut fault = Fault::new(*then, *reason, text);
        fault.error = fault.error.hint(*hint);
        return fault;
    }
    // The client has no code of its own for a fault of the connection.
    if !causes.is_empty() {
        return of_transport(causes);
    }
    match code {
        UNAVAILABLE | DEADLINE | CANCELLED => Fault::new(Then::Again, Reason::Unreachable, message),
        _ => Fault::new(Then::GiveUp, Reason::V3Failed, format!("the cluster answered: {message}")),
    }
}

/// The fault of a connection, from the texts of its causes.
fn of_transport(chain: &str) -> Fault {
    let has = |words: &[&str]| words.iter().any(|word| chain.contains(word));
    if has(&["certificate", "tls", "TLS", "InvalidContentType", "HandshakeFailure", "fatal alert", "corrupt message"]) {
        let fault = Fault::new(Then::GiveUp, Reason::Unreachable, format!("TLS fails: {}", last(chain)));
        let hint = "check the scheme of --endpoints, and --cacert, --cert and --key";
        return Fault { error: fault.error.hint(hint), unconnected: true, ..fault };
    }
    let unconnected = has(&["onnection refused", "dns error", "tcp connect", "nreachable", "lookup address"]);
    let fault = Fault::new(Then::Again, Reason::Unreachable, format!("cannot connect: {}", last(chain)));
    if unconnected {
        return Fault { error: fault.error.hint("check --endpoints, and that the member runs"), unconnected, ..fault };
    }
    let fault = Fault::new(Then::Again, Reason::Unreachable, format!("the connection failed: {}", last(chain)));
    Fault {
        error: fault
            .error
            .hint("a member with TLS needs `https` in --endpoints, --cacert, and perhaps --cert and --key"),
        ..fault
    }
}

/// Returns the texts of an error and its causes.
fn chain(error: &dyn StdError) -> String {
    match causes(error) {
        causes if causes.is_empty() => error.to_string(),
        causes => format!("{error}: {causes}"),
    }
}

/// Returns the texts of the causes of an error.
fn causes(error: &dyn StdError) -> String {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    // A layer can have the text of its cause.
    texts.dedup();
    texts.join(": ")
}

/// Returns the text of the first cause, without the names of the layers around it.
fn last(chain: &str) -> String {
    let layers = ["transport error: ", "client error (Connect): ", "tcp connect error: ", "error trying to connect: "];
    let mut text = chain;
    for layer in layers {
        text = text.rsplit(layer).next().unwrap_or(text);
    }
    text.chars().take(200).collect()
}

impl Fault {
    fn new(then: Then, reason: Reason, message: impl Into<String>) -> Fault {
        Fault { then, error: Error::new(reason, message), unconnected: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_etcd_have_reasons() {
        for (code, text, then, reason) in [
            (3, "etcdserver: authentication failed, invalid user ID or password", Then::GiveUp, Reason::LoginFailed),
            (16, "etcdserver: invalid auth token", Then::LogIn, Reason::LoginFailed),
            (7, "etcdserver: permission denied", Then::GiveUp, Reason::V3Denied),
            (8, "etcdserver: mvcc: database space exceeded", Then::GiveUp, Reason::NoSpace),
            (8, "etcdserver: too many requests", Then::Again, Reason::Unreachable),
            (3, "etcdserver: request is too large", Then::GiveUp, Reason::RequestTooLarge),
            (14, "etcdserver: leader changed", Then::Again, Reason::Unreachable),
            (14, "etcdserver: not capable", Then::Again, Reason::Unreachable),
            (5, "etcdserver: requested lease not found", Then::GiveUp, Reason::LeaseGone),
            (2, "something new", Then::GiveUp, Reason::V3Failed),
        ] {
            let fault = of_status(code, text, "");
            assert_eq!((fault.then, fault.error.reason()), (then, reason), "{text}");
        }
    }

    #[test]
    fn faults_of_a_connection_name_their_cause() {
        let refused = "transport error: client error (Connect): tcp connect error: Connection refused (os error 111)";
        let fault = of_transport(refused);
        assert!(fault.unconnected && fault.then == Then::Again);
        assert_eq!(fault.error.message(), "cannot connect: Connection refused (os error 111)");
        let tls = "transport error: client error (Connect): invalid peer certificate: UnknownIssuer";
        assert_eq!(of_transport(tls).then, Then::GiveUp);
        assert_eq!(of_transport(tls).error.message(), "TLS fails: invalid peer certificate: UnknownIssuer");
    }
}
