//! A thread that watches a cluster and puts the events into a bounded queue.
//!
//! A stream of etcd that begins in the past sends one event and then nothing, so such a stream ends at its first event. A stream that
//! begins after the index of the store sends every later event, or ends. Each stream begins after the last event, so none is lost or
//! repeated. Must not know what an event means.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::client::Client;
use super::event::Event;
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;

/// Bytes and events that wait for the reader. The server keeps the next 1,000.
const MAX_BYTES: usize = 64 << 20;
const MAX_EVENTS: usize = 65_536;
/// How long a stream may be silent before it is opened again, which shows the index of the store.
const IDLE: Duration = Duration::from_secs(1);
/// The code of the API for a watch that begins before the first event that the server keeps.
const EVENT_INDEX_CLEARED: u64 = 401;

/// What a watch found.
#[derive(Debug)]
pub(super) enum Found {
    /// An event, and an instant after the server sent it.
    Event(Box<Event>, Timestamp),
    /// Events are lost, for this reason.
    Lost(String),
    /// The cluster cannot be watched any more.
    Failed(Error),
}

/// A running watch. Dropping it ends the thread at its next event or silence.
#[derive(Debug)]
pub(super) struct Watch {
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    found: VecDeque<Found>,
    bytes: usize,
    /// Every event up to this index was put into the queue.
    position: u64,
    closed: bool,
}

impl Watch {
    /// Starts to watch every key, from this index on.
    ///
    /// # Errors
    /// [`Reason::Internal`] if no thread can be started.
    pub(super) fn start(client: Client, from: V2Index) -> Result<Watch> {
        let queue = Arc::new(Queue::default());
        queue.lock().position = from.0.saturating_sub(1);
        let thread_queue = Arc::clone(&queue);
        let run = move || run(client, from.0, &thread_queue);
        let started = thread::Builder::new().name("v2-watch".to_string()).spawn(run);
        started.map_err(|e| Error::new(Reason::Internal, format!("cannot start a thread: {e}")))?;
        Ok(Watch { queue })
    }

    /// Takes at most `max` events, and waits for the first until the deadline. The index is that up to which all events were taken,
    /// if the queue is empty then.
    pub(super) fn take(&self, max: usize, deadline: Instant) -> (Vec<Found>, Option<V2Index>) {
        let mut state = self.queue.lock();
        while state.found.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let taken = max.min(state.found.len());
        let found: Vec<Found> = state.found.drain(..taken).collect();
        state.bytes = state.bytes.saturating_sub(found.iter().map(Found::weight).sum());
        self.queue.changed.notify_all();
        let position = state.found.is_empty().then_some(V2Index(state.position));
        (found, position)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_all();
    }
}

impl Found {
    fn weight(&self) -> usize {
        match self {
            Found::Event(event, _) => event.weight(),
            Found::Lost(_) | Found::Failed(_) => 0,
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts something in as soon as there is room. Returns false if nobody reads any more.
    fn put(&self, found: Found, position: u64) -> bool {
        let full = |state: &mut State| !state.closed && (state.bytes > MAX_BYTES || state.found.len() >= MAX_EVENTS);
        let mut state = self.changed.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        state.bytes += found.weight();
        state.found.push_back(found);
        state.position = position;
        self.changed.notify_all();
        !state.closed
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn reached(&self, position: u64) {
        let mut state = self.lock();
        state.position = state.position.max(position);
        self.changed.notify_all();
    }
}

fn run(mut client: Client, from: u64, queue: &Queue) {
    let mut next = from;
    // The index of the store at the beginning of the last stream, if that was silent.
    let mut silent: Option<u64> = None;
    while !queue.is_closed() {
        let end = match stream(&mut client, next, queue) {
            Ok(end) => end,
            Err(e) => {
                queue.put(Found::Failed(e), next.saturating_sub(1));
                return;
            }
        };
        match end {
            End::Lost(why) => {
                queue.put(Found::Lost(why), next.saturating_sub(1));
                return;
            }
            End::Events(last) => (next, silent) = (last.saturating_add(1), None),
            End::Cut => silent = None,
            // Events of hidden keys are not sent. A second silent stream makes sure that the first one did not end before its event,
            // if its member does not lag: one that has this index would have sent it at once.
            End::Silent(index) => match silent {
                Some(before) if before >= next && index >= before => {
                    queue.reached(before);
                    (next, silent) = (before.saturating_add(1), Some(index));
                }
                _ => silent = Some(index),
            },
        }
    }
}

/// How a stream ended.
enum End {
    /// After the event with this index.
    Events(u64),
    /// Without an event; the store had this index at its beginning.
    Silent(u64),
    /// Within its first event.
    Cut,
    Lost(String),
}

/// Reads one stream of events.
fn stream(client: &mut Client, next: u64, queue: &Queue) -> Result<End> {
    let target = format!("/v2/keys/?wait=true&recursive=true&stream=true&waitIndex={next}");
    let mut answer = client.get(&target, Some(IDLE))?;
    if answer.response.status() != 200 {
        let error = answer.error();
        if error.error_code == EVENT_INDEX_CLEARED {
            return Ok(End::Lost(format!("the server no longer has the events from index {next} on")));
        }
        return Err(super::client::unreachable(&answer.url, &error.text()));
    }
    let index = answer.index()?.0;
    let (mut last, mut skipped) = (None, false);
    let received = Cell::new(false);
    let reader = BufReader::new(Watched { reader: answer.response.body_mut().as_reader(), received: &received });
    for event in serde_json::Deserializer::from_reader(reader).into_iter::<Event>() {
        // A stream that ends within an event: the next one begins with it.
        let Ok(event) = event else { break };
        let at = event.index().0;
        if at < next {
            skipped = true;
            continue;
        }
        last = Some(at);
        if !queue.put(Found::Event(Box::new(event), Timestamp::now()), at) || at <= index {
            break;
        }
    }
    Ok(match last {
        Some(last) => End::Events(last),
        None if received.get() && !skipped => End::Cut,
        None => End::Silent(index),
    })
}

/// A reader that tells whether anything came.
struct Watched<'r, R> {
    reader: R,
    received: &'r Cell<bool>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(out)?;
        self.received.set(self.received.get() || read > 0);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::scripted::{Answer, event, server};
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::online::v2::V2Options;

    /// An answer to a watch: the index of the store, and a body that may end anywhere.
    type Scripted = (u64, String);

    /// Gives these answers, and then refuses the index as cleared. Sends the index from which each watch begins.
    fn scripted(answers: Vec<Scripted>) -> (String, mpsc::Receiver<u64>) {
        let (sender, asked) = mpsc::channel();
        let cleared = (1, format!(r#"{{"errorCode":{EVENT_INDEX_CLEARED}}}"#), "400 Bad Request");
        let answers = answers.into_iter().map(|(index, body)| (index, body, "200 OK"));
        let mut answers = answers.chain([cleared]);
        let url = server(move |target| {
            let (index, body, status) = answers.next()?;
            let from = target.split("waitIndex=").nth(1).unwrap();
            sender.send(from.parse().unwrap()).unwrap();
            Some(Answer { status, index, body })
        });
        (url, asked)
    }

    /// Watches from index 5 on. Returns the indexes of the events, the last position, and from which index each stream began.
    fn watch(answers: Vec<Scripted>) -> (Vec<u64>, u64, Vec<u64>) {
        let (url, asked) = scripted(answers);
        let options = V2Options { endpoints: vec![url], ..V2Options::default() };
        let watch = Watch::start(Client::new(&options, Interrupt::default()).unwrap(), V2Index(5)).unwrap();
        let (mut events, mut last, until) = (Vec::new(), 0, Instant::now() + Duration::from_secs(20));
        loop {
            assert!(Instant::now() < until, "the script comes to its end");
            let (found, position) = watch.take(1, until);
            last = position.map_or(last, |position| position.0);
            match found.into_iter().next() {
                Some(Found::Event(event, _)) => events.push(event.index().0),
                Some(Found::Lost(_)) => return (events, last, asked.try_iter().collect()),
                Some(Found::Failed(e)) => panic!("{e}"),
                None => {}
            }
        }
    }

    #[test]
    fn two_silent_streams_prove_that_nothing_happened() {
        let silent = || (10, String::new());
        assert_eq!(watch(vec![silent(), silent()]), (vec![], 10, vec![5, 5, 11]));
        // The second stream proves the index of the first one, and the third that of the second.
        let grows = vec![silent(), (12, String::new()), (12, String::new())];
        assert_eq!(watch(grows), (vec![], 12, vec![5, 5, 11, 13]));
    }

    #[test]
    fn a_member_that_lags_proves_nothing() {
        // The second stream is that of a member at index 4: it does not have the event yet.
        let lagging = vec![(10, String::new()), (4, String::new()), (4, event(7))];
        assert_eq!(watch(lagging), (vec![7], 7, vec![5, 5, 5, 8]));
    }

    #[test]
    fn a_stream_that_ends_within_its_first_event_is_not_silent() {
        let half = event(7)[..20].to_string();
        let cut = vec![(10, String::new()), (10, half), (10, event(7))];
        assert_eq!(watch(cut), (vec![7], 7, vec![5, 5, 5, 8]));
    }

    #[test]
    fn an_event_before_the_wanted_one_is_left_out() {
        let early = vec![(10, event(3)), (10, event(6) + &event(9))];
        assert_eq!(watch(early), (vec![6], 6, vec![5, 5, 7]));
    }
}
