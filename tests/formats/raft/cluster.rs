//! A small model of raft: members that elect leaders, replicate, commit, take and receive snapshots, and crash; and the
//! files that each of them leaves, record by record in etcd's format.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use etcdlift::internals::fuzzing::log::{self, Dialect, Log};
use etcdlift::internals::fuzzing::model::Model;
use etcdlift::internals::source::raft::{Method, Request};

use crate::common::random::Random;

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) kind: u64,
    pub(super) data: Option<Vec<u8>>,
    pub(super) write: Option<Write>,
}

/// A change of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    Member(u64),
    Put(String, String),
    Delete(String),
}

impl Write {
    fn request(&self) -> Option<Request<'_>> {
        match self {
            Write::Member(_) => None,
            Write::Put(path, val) => {
                Some(Request { method: Method::Put, path: path.as_bytes(), val: val.as_bytes(), ..Request::default() })
            }
            Write::Delete(path) => {
                Some(Request { method: Method::Delete, path: path.as_bytes(), ..Request::default() })
            }
        }
    }

    pub(super) fn apply(&self, model: &mut Model) {
        match self {
            Write::Member(id) => model.add_member(*id, &format!(r#"{{"peerURLs":["http://localhost:{id}"]}}"#)),
            write => model.apply(&write.request().unwrap()),
        }
    }
}

/// How the servers of a run write their logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) dialect: Dialect,
    /// 2.0 writes the hard state before the entries.
    pub(super) state_first: bool,
    /// Servers before 3.4.8 record a received snapshot after the hard state that commits it.
    pub(super) record_after_state: bool,
    /// From 2.3 on a commit index alone is not written at once.
    pub(super) lazy_commit: bool,
    pub(super) version: (u32, u32),
}

/// One member: what it has in memory, and its files.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: u64,
    term: u64,
    vote: u64,
    commit: u64,
    /// Its log in memory, without what a snapshot holds.
    log: BTreeMap<u64, Entry>,
    /// What a restart reads: entries that are written later replace those at their index and after it.
    disk: BTreeMap<u64, Entry>,
    snapshot: (u64, u64),
    pub(super) snapshots: Vec<(u64, u64, Vec<u8>)>,
    pub(super) wal: Log,
    /// Segments that were purged.
    pub(super) purged: usize,
    /// The hard state that is in the file.
    written: [u64; 3],
    /// The entry or snapshot that was written last, which names the next segment.
    newest: u64,
}

impl Member {
    fn last(&self) -> (u64, u64) {
        let last = self.log.last_key_value().map(|(index, entry)| (entry.term, *index));
        last.unwrap_or((self.snapshot.1, self.snapshot.0))
    }

    /// Term and index that the log ends with once it is read from the files.
    pub(super) fn last_on_disk(&self) -> (u64, u64) {
        let last = self.disk.last_key_value().filter(|(index, _)| **index > self.snapshot.0);
        last.map_or((self.snapshot.1, self.snapshot.0), |(index, entry)| (entry.term, *index))
    }

    /// Whether its files hold an entry, or a snapshot that does.
    pub(super) fn holds(&self, index: u64, entry: &Entry) -> bool {
        index <= self.snapshot.0 || self.disk.get(&index) == Some(entry)
    }

    pub(super) fn entry_on_disk(&self, index: u64) -> Option<&Entry> {
        self.disk.get(&index)
    }

    /// The commit index in its files.
    pub(super) fn written_commit(&self) -> u64 {
        self.written[2].max(self.snapshot.0)
    }

    fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.snapshot.0 { Some(self.snapshot.1) } else { self.log.get(&index).map(|entry| entry.term) }
    }

    fn save(&mut self, style: Style, first: u64, entries: &[Entry]) {
        let state = [self.term, self.vote, self.commit];
        let due =
            state != self.written && (!entries.is_empty() || !style.lazy_commit || state[..2] != self.written[..2]);
        self.save_if(due, style, first, entries);
    }

    fn save_if(&mut self, due: bool, style: Style, first: u64, entries: &[Entry]) {
        let state = [self.term, self.vote, self.commit];
        if due && style.state_first {
            self.wal.state(state[0], state[1], state[2]);
        }
        for (index, entry) in (first..).zip(entries) {
            self.wal.entry(entry.kind, entry.term, index, entry.data.as_deref());
            self.newest = index;
            self.disk.split_off(&index);
            self.disk.insert(index, entry.clone());
        }
        if due && !style.state_first {
            self.wal.state(state[0], state[1], state[2]);
        }
        if due {
            self.written = state;
        }
    }
}

/// A cluster and all that it ever committed.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) style: Style,
    pub(super) members: Vec<Member>,
    leader: Option<usize>,
    /// Entries that some leader knew to be committed, from index 1.
    pub(super) committed: Vec<Entry>,
    writes: u64,
}

impl Cluster {
    /// A new cluster: the members are the first entries, and the version the next.
    pub(super) fn new(style: Style, size: u64) -> Cluster {
        let ids: Vec<u64> = (1..=size).map(|number| 0xa0 + number).collect();
        let mut first: Vec<Entry> = ids
            .iter()
            .map(|id| {
                let context = format!(r#"{{"id":{id},"peerURLs":["http://localhost:{id}"]}}"#);
                let data = Some(log::conf_change(0, *id, &context));
                Entry { term: 1, kind: log::CONF_CHANGE, data, write: Some(Write::Member(*id)) }
            })
            .collect();
        if style.version > (2, 0) {
            let version = format!("{}.{}.0", style.version.0, style.version.1);
            first.push(normal(1, Write::Put("/0/version".into(), version)));
        }
        let members = ids.iter().map(|id| {
            let mut member = Member {
                id: *id,
                term: 1,
                vote: 0,
                commit: first.len() as u64,
                log: BTreeMap::new(),
                disk: BTreeMap::new(),
                snapshot: (0, 0),
                snapshots: Vec::new(),
                wal: Log::new(style.dialect, *id, 0xc1),
                purged: 0,
                written: [0; 3],
                newest: 0,
            };
            member.log.extend((1..).zip(first.iter().cloned()));
            member.save(style, 1, &first);
            member
        });
        Cluster { style, members: members.collect(), leader: None, committed: first.clone(), writes: 0 }
    }

    pub(super) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The store after so many committed entries, or after these and others that follow them.
    pub(super) fn state_after<'e>(&self, entries: impl Iterator<Item = &'e Entry>) -> Model {
        let mut model = Model::new(self.style.version);
        entries.filter_map(|entry| entry.write.as_ref()).for_each(|write| write.apply(&mut model));
        model
    }

    pub(super) fn step(&mut self, random: &mut Random) {
        match random.below(20) {
            0..=2 => self.elect(random),
            3..=9 => self.propose(random),
            10..=14 => self.replicate(random),
            15 => self.snapshot(random),
            16 => self.cut(random),
            17 => self.crash(random),
            _ => {
                self.replicate(random);
                self.replicate(random);
            }
        }
    }

    fn elect(&mut self, random: &mut Random) {
        let candidate = random.below(self.members.len());
        let term = self.members.iter().map(|member| member.term).max().unwrap() + 1;
        let last = self.members[candidate].last();
        let id = self.members[candidate].id;
        let mut votes = 0;
        for at in 0..self.members.len() {
            if at != candidate && random.chance(30) {
                continue;
            }
            let member = &mut self.members[at];
            let grants = at == candidate || last >= member.last();
            (member.term, member.vote) = (term, if grants { id } else { 0 });
            votes += usize::from(grants);
            member.save(self.style, 0, &[]);
        }
        if votes >= self.majority() {
            self.leader = Some(candidate);
            self.append(candidate, Entry { term, kind: log::NORMAL, data: None, write: None });
        } else if self.leader.is_some_and(|leader| self.members[leader].term == term) {
            // The leader was reached, and steps down.
            self.leader = None;
        }
    }

    fn append(&mut self, leader: usize, entry: Entry) {
        let style = self.style;
        let member = &mut self.members[leader];
        let index = member.last().1 + 1;
        member.log.insert(index, entry.clone());
        member.save(style, index, &[entry]);
        self.advance(leader);
    }

    /// A leader that was deposed may not know it, and go on alone.
    fn propose(&mut self, random: &mut Random) {
        let Some(leader) = self.leader else { return };
        self.writes += 1;
        let key = format!("/1/k{}", random.below(30));
        let write = match random.below(8) {
            0 => Write::Delete(key),
            _ => Write::Put(key, format!("value {} {}", self.writes, "x".repeat(random.below(60)))),
        };
        let term = self.leader_term(leader);
        self.append(leader, normal(term, write));
    }

    fn leader_term(&self, leader: usize) -> u64 {
        // A leader only appends in the term that it was elected in: that of its last entry or later.
        self.members[leader].log.values().last().map_or(self.members[leader].term, |entry| entry.term)
    }

    fn replicate(&mut self, random: &mut Random) {
        let Some(leader) = self.leader else { return };
        let to = random.below(self.members.len());
        let term = self.leader_term(leader);
        if to == leader || self.members[to].term > term {
            return;
        }
        let style = self.style;
        let (source, target) = two(&mut self.members, leader, to);
        target.term = term;
        let matched = (0..=target.last().1.min(source.last().1)).rev().find(|index| {
            let term = source.term_at(*index);
            *index == 0 && source.snapshot.0 == 0 || term.is_some() && term == target.term_at(*index)
        });
        let Some(matched) = matched.filter(|matched| *matched >= source.snapshot.0) else {
            send_snapshot(style, source, target);
            self.advance(leader);
            return;
        };
        let new: Vec<(u64, Entry)> = source
            .log
            .range(matched + 1..)
            .take(1 + random.below(5))
            .filter(|(index, entry)| target.log.get(index) != Some(entry))
            .map(|(index, entry)| (*index, entry.clone()))
            .collect();
        let up_to = new.last().map_or(matched, |(index, _)| *index);
        if let Some((first, _)) = new.first() {
            target.log.split_off(first);
            target.log.extend(new.iter().cloned());
        }
        let entries: Vec<Entry> = new.iter().map(|(_, entry)| entry.clone()).collect();
        target.commit = target.commit.max(source.commit.min(up_to));
        target.save(style, new.first().map_or(0, |(index, _)| *index), &entries);
        self.advance(leader);
    }

    /// A leader counts the members that hold an entry of its own term.
    fn advance(&mut self, leader: usize) {
        let term = self.leader_term(leader);
        let deposed = self.members.iter().filter(|member| member.term > term).count();
        let last = self.members[leader].last().1;
        for index in (self.members[leader].commit + 1..=last).rev() {
            let entry = &self.members[leader].log[&index];
            let holds = |member: &&Member| {
                member.term <= term && (member.snapshot.0 >= index || member.log.get(&index) == Some(entry))
            };
            if entry.term == term
                && deposed < self.majority()
                && self.members.iter().filter(holds).count() >= self.majority()
            {
                let source = &mut self.members[leader];
                source.commit = index;
                for index in self.committed.len() as u64 + 1..=index {
                    self.committed.push(source.log[&index].clone());
                }
                source.save(self.style, 0, &[]);
                return;
            }
        }
    }

    fn snapshot(&mut self, random: &mut Random) {
        let at = random.below(self.members.len());
        let (index, id) = (self.members[at].commit, at);
        if index <= self.members[at].snapshot.0 {
            return;
        }
        let json = self.state_after(self.committed[..index as usize].iter()).after_snapshot().json();
        let voters: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        let term = self.committed[index as usize - 1].term;
        let member = &mut self.members[id];
        // What was not written yet is written with the snapshot record, before it.
        member.save_if(member.written[2] != member.commit, self.style, 0, &[]);
        member.newest = member.newest.max(index);
        member.wal.snapshot(index, term);
        member.snapshots.push((index, term, log::snap(json.as_bytes(), index, term, &voters)));
        if random.chance(70) {
            member.snapshot = (index, term);
            member.log = member.log.split_off(&(index + 1));
        }
    }

    fn cut(&mut self, random: &mut Random) {
        let at = random.below(self.members.len());
        let member = &mut self.members[at];
        let next = member.newest + 1;
        let written = member.written;
        member.wal.cut(next, random.chance(80).then_some(written));
        // A segment is purged when the next one begins at or below a snapshot.
        let segments = member.wal.segments();
        let purgeable = segments.iter().skip(1).take_while(|segment| segment.index <= member.snapshot.0).count();
        if random.chance(30) {
            member.purged = member.purged.max(purgeable);
        }
    }

    /// What was not written is gone; the log is what the files say.
    fn crash(&mut self, random: &mut Random) {
        let at = random.below(self.members.len());
        if self.leader == Some(at) {
            self.leader = None;
        }
        let member = &mut self.members[at];
        if let Some((index, term, _)) = member.snapshots.last().filter(|(index, ..)| *index > member.snapshot.0) {
            member.snapshot = (*index, *term);
        }
        [member.term, member.vote, member.commit] = member.written;
        member.commit = member.commit.max(member.snapshot.0);
        member.log = member.disk.range(member.snapshot.0 + 1..).map(|(index, entry)| (*index, entry.clone())).collect();
    }
}

fn normal(term: u64, write: Write) -> Entry {
    let data = write.request().map(|request| log::request(&request));
    Entry { term, kind: log::NORMAL, data, write: Some(write) }
}

fn two(members: &mut [Member], a: usize, b: usize) -> (&mut Member, &mut Member) {
    let [a, b] = members.get_disjoint_mut([a, b]).unwrap();
    (a, b)
}

/// The follower lacks what the leader has compacted: it gets the leader's snapshot.
fn send_snapshot(style: Style, source: &Member, target: &mut Member) {
    let Some((index, term, file)) = source.snapshots.iter().rev().find(|(index, ..)| *index == source.snapshot.0)
    else {
        return;
    };
    if *index <= target.commit {
        return;
    }
    target.commit = *index;
    let state = [target.term, target.vote, target.commit];
    if style.record_after_state {
        target.wal.state(state[0], state[1], state[2]);
        target.wal.snapshot(*index, *term);
    } else {
        target.wal.snapshot(*index, *term);
        target.wal.state(state[0], state[1], state[2]);
    }
    target.written = state;
    target.newest = target.newest.max(*index);
    target.snapshots.push((*index, *term, file.clone()));
    target.snapshot = (*index, *term);
    target.log.clear();
}

/// Writes a member's files.
pub(super) fn write(style: Style, member: &Member, dir: &Path) {
    let (snap, wal) = (dir.join("member/snap"), dir.join("member/wal"));
    fs::create_dir_all(&snap).unwrap();
    fs::create_dir_all(&wal).unwrap();
    for (index, term, file) in &member.snapshots {
        fs::write(snap.join(log::snap_file(*term, *index)), file).unwrap();
    }
    let segments = member.wal.segments();
    for (seq, segment) in segments.iter().enumerate().skip(member.purged) {
        let path = wal.join(log::segment_file(seq as u64, segment.index));
        fs::write(&path, &segment.bytes).unwrap();
        if style.dialect == Dialect::Padded && seq + 1 == segments.len() {
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(64_000_000).unwrap();
        }
    }
}
