//! A source by plain options.

use std::time::{Duration, Instant};

use super::dir::Dir;
use super::http::Http;
use super::options::V2Options;
use super::{Change, Head, Next, Node, V2};
use crate::error::{Error, Reason, Result};
use crate::ids::V2Index;
use crate::interrupt::Interrupt;
use crate::source::dir::WalDir;

/// Opens a source. Reads of the data begin with [`V2::state`].
///
/// # Errors
/// [`Reason::Usage`] without a directory and without endpoints, or for options that cannot be used.
pub fn open(options: &V2Options, interrupt: Interrupt<'static>) -> Result<Box<dyn V2>> {
    let Some(dir) = &options.dir else {
        if options.endpoints.is_empty() {
            return Err(Error::new(
                Reason::Usage,
                "expected a data directory or endpoints of the v2 API, found neither",
            ));
        }
        return Ok(Box::new(Http::open(options, interrupt)?));
    };
    let wal_dir = options.wal_dir.as_deref().map(WalDir::from);
    let dir = Dir::open(dir, wal_dir.as_ref(), interrupt)?;
    if options.endpoints.is_empty() {
        return Ok(Box::new(dir));
    }
    // A directory is read even while no endpoint answers.
    let quiet = V2Options { retry_for: Duration::ZERO, tell: None, ..options.clone() };
    let http = Http::open(&quiet, interrupt)?;
    Ok(Box::new(Committing {
        dir,
        http,
        tell: options.tell,
        due: None,
        asked: None,
        silent: false,
        known: V2Index(0),
        same: false,
    }))
}

/// A directory, and an API that commits the entries in its log.
#[derive(Debug)]
struct Committing {
    dir: Dir,
    http: Http,
    tell: Option<fn(&str)>,
    /// When a read through the log is sent, while writes wait for their commit.
    due: Option<Instant>,
    /// When the last read through the log was sent.
    asked: Option<Instant>,
    /// Whether no endpoint answered then, which was said.
    silent: bool,
    /// The highest index that the cluster has named. A member that lags does not have it.
    known: V2Index,
    /// Whether the endpoints are known to be of the cluster of the directory.
    same: bool,
}

/// How long writes may wait for their commit before a read through the log is sent.
const PATIENCE: Duration = Duration::from_millis(200);
/// The time until the next read after one that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);
/// How often the cluster is asked for its index while the directory does not change.
const ASK: Duration = Duration::from_secs(1);

impl Committing {
    /// Sends a read through the log if writes have waited for their commit. One that fails is sent again later.
    fn commit(&mut self, head: Head) -> Result<()> {
        if head.uncommitted == 0 {
            self.due = None;
            // The member may lag, and not know it.
            let every = if self.silent { AFTER_FAILURE } else { ASK };
            if self.asked.is_none_or(|asked| asked.elapsed() >= every) {
                self.ask()?;
            }
            return Ok(());
        }
        let now = Instant::now();
        if *self.due.get_or_insert(now + PATIENCE) > now {
            return Ok(());
        }
        let is_answered = self.ask()?;
        self.due = Some(Instant::now() + if is_answered { PATIENCE } else { AFTER_FAILURE });
        Ok(())
    }

    /// Sends a read through the log. Returns whether it was answered.
    fn ask(&mut self) -> Result<bool> {
        self.asked = Some(Instant::now());
        match self.index_of_cluster() {
            Ok(index) => {
                self.known = self.known.max(index);
                self.silent = false;
                Ok(true)
            }
            Err(e) if matches!(e.reason(), Reason::Interrupted(_) | Reason::StateDiffers) => Err(e),
            Err(e) => {
                if !std::mem::replace(&mut self.silent, true)
                    && let Some(tell) = self.tell
                {
                    tell(&format!("{e}; whether the directory has everything is not known until it answers"));
                }
                Ok(false)
            }
        }
    }

    /// Reads the index of the cluster through its log. Refuses endpoints of another cluster, whose index says nothing.
    fn index_of_cluster(&mut self) -> Result<V2Index> {
        if !self.same {
            let (directory, endpoints) = (self.dir.cluster()?, self.http.cluster()?);
            if directory != endpoints {
                let message =
                    format!("--v2-endpoints are of v2 cluster {endpoints}, and the directory is of {directory}");
                return Err(Error::new(Reason::StateDiffers, message).hint("give endpoints of the same cluster"));
            }
            self.same = true;
        }
        self.http.quorum_read()
    }

    /// Counts what the cluster has and the directory has not.
    fn with_known(&self, head: Head) -> Head {
        let missing = self.known.0.saturating_sub(head.index.0);
        Head { uncommitted: head.uncommitted.max(missing), ..head }
    }
}

impl V2 for Committing {
    fn cluster(&mut self) -> Result<String> {
        self.dir.cluster()
    }

    fn state(&mut self, each: &mut dyn FnMut(Node) -> Result<()>) -> Result<Head> {
        self.dir.state(each)
    }

    fn head(&mut self) -> Result<Head> {
        self.ask()?;
        self.dir.head().map(|head| self.with_known(head))
    }

    fn cluster_index(&mut self) -> Result<Option<V2Index>> {
        self.known = self.known.max(self.index_of_cluster()?);
        Ok(Some(self.known))
    }

    fn since(&mut self, index: V2Index, each: &mut dyn FnMut(Change) -> Result<()>) -> Result<bool> {
        self.dir.since(index, each)
    }

    fn next(&mut self, wait: Duration) -> Result<Next> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.dir.next(left.min(PATIENCE))? {
                Next::Quiet(head) => {
                    self.commit(self.with_known(head))?;
                    if Instant::now() >= deadline {
                        return Ok(Next::Quiet(self.with_known(head)));
                    }
                }
                next => return Ok(next),
            }
        }
    }
}
