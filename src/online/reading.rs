//! The thread that reads v2: the whole state, then changes, and the whole state again after a loss. Must not know v3.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::online::v2::{Change, Head, Next, Node, V2};

/// What the thread says.
#[derive(Debug)]
pub enum Message {
    /// Keys of the state.
    Nodes(Vec<Node>),
    /// The state is complete.
    State(Head),
    /// Changes before the state that a job which did not run has missed.
    Missed(Vec<Change>),
    /// All of them are known, or not.
    MissedAll(bool),
    /// Changes after the state.
    Changes(Vec<Change>, Head),
    /// There is none.
    Quiet(Head),
    /// Changes are lost: the state follows again.
    Lost(String),
    /// The source cannot be read any more.
    Failed(Error),
}

/// Messages that wait at most.
pub const WAITING: usize = 64;

/// Nodes or changes of one message.
const PART: usize = 512;

/// How long a source waits for a change before it says that there is none.
const WAIT: Duration = Duration::from_millis(200);

/// What the receiver tells the thread.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The index up to which changes are carried.
    pub known: AtomicU64,
}

/// Reads until the receiver is gone.
pub fn read(v2: &mut dyn V2, out: &SyncSender<Message>, wishes: &Wishes) {
    if let Err(error) = read_on(v2, out, wishes) {
        // The receiver is gone if this fails.
        let _ = out.send(Message::Failed(error));
    }
}

fn read_on(v2: &mut dyn V2, out: &SyncSender<Message>, wishes: &Wishes) -> Result<()> {
    let send = |message| out.send(message).map_err(|_| Error::new(Reason::Internal, "nobody reads"));
    loop {
        let known = V2Index(wishes.known.load(Ordering::Relaxed));
        let mut nodes = Vec::new();
        let head = v2.state(&mut |node| {
            nodes.push(node);
            if nodes.len() >= PART { send(Message::Nodes(std::mem::take(&mut nodes))) } else { Ok(()) }
        })?;
        send(Message::Nodes(nodes))?;
        send(Message::State(head))?;
        let mut missed = Vec::new();
        let all = known >= head.index
            || v2.since(known, &mut |change| {
                missed.push(change);
                if missed.len() >= PART { send(Message::Missed(std::mem::take(&mut missed))) } else { Ok(()) }
            })?;
        send(Message::Missed(missed))?;
        send(Message::MissedAll(all))?;
        loop {
            match v2.next(WAIT)? {
                Next::Changes { changes, head } => send(Message::Changes(changes, head))?,
                Next::Quiet(head) => send(Message::Quiet(head))?,
                Next::Lost(why) => {
                    send(Message::Lost(why))?;
                    break;
                }
            }
        }
    }
}
