//! The counts and examples of each topic, while a source is read.
//!
//! Must not know when something is a finding.

use std::collections::BTreeMap;

use crate::report::advice::{Finding, Topic};

/// The counts and examples of all topics.
pub(super) struct Tallies {
    /// Maximum number of examples of one topic.
    limit: usize,
    of: BTreeMap<Topic, Tally>,
}

#[derive(Default)]
struct Tally {
    count: u64,
    requests: u64,
    refused: u64,
    events: u64,
    examples: Vec<String>,
    more: bool,
}

impl Tallies {
    /// Creates empty tallies with at most this number of examples for each topic.
    pub(super) fn new(limit: usize) -> Tallies {
        Tallies { limit, of: BTreeMap::new() }
    }

    /// Counts a node, a user or a permission, and offers it as an example.
    pub(super) fn add(&mut self, topic: Topic, name: impl FnOnce() -> String) {
        self.count(topic, 1);
        self.example(topic, name);
    }

    /// Adds to the count of a topic.
    pub(super) fn count(&mut self, topic: Topic, count: u64) {
        if count > 0 {
            self.tally(topic).count += count;
        }
    }

    /// Adds to the requests of a topic; `refused` are those of them that etcd refused.
    pub(super) fn requests(&mut self, topic: Topic, requests: u64, refused: u64) {
        let tally = self.tally(topic);
        tally.requests += requests;
        tally.refused += refused;
    }

    /// Adds to the events of a topic.
    pub(super) fn events(&mut self, topic: Topic, events: u64) {
        self.tally(topic).events += events;
    }

    /// Offers an example. Each is listed once. Once one is left out, later ones are not made.
    pub(super) fn example(&mut self, topic: Topic, name: impl FnOnce() -> String) {
        let limit = self.limit;
        let tally = self.tally(topic);
        if tally.more {
            return;
        }
        let name = name();
        if tally.examples.contains(&name) {
            return;
        }
        if tally.examples.len() < limit { tally.examples.push(name) } else { tally.more = true }
    }

    /// Adds other tallies, whose examples come first.
    pub(super) fn put_first(&mut self, others: Tallies) {
        for (topic, other) in others.of {
            let mut own = std::mem::replace(self.tally(topic), other);
            let tally = self.tally(topic);
            tally.count += own.count;
            tally.requests += own.requests;
            tally.refused += own.refused;
            tally.events += own.events;
            own.examples.drain(..).for_each(|name| self.example(topic, || name));
            self.tally(topic).more |= own.more;
        }
    }

    /// Returns the findings, in the order of the topics.
    pub(super) fn findings(self) -> Vec<Finding> {
        let finding = |(topic, tally): (Topic, Tally)| {
            let Tally { count, requests, refused, events, examples, more } = tally;
            let (area, unit, guide) = (topic.area(), topic.unit(), topic.guide());
            Finding { topic, area, unit, count, requests, refused, events, examples, more, guide }
        };
        self.of.into_iter().map(finding).collect()
    }

    fn tally(&mut self, topic: Topic) -> &mut Tally {
        self.of.entry(topic).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_listed_once_and_the_rest_is_named() {
        let mut tallies = Tallies::new(2);
        for name in ["/a", "/b", "/a"] {
            tallies.add(Topic::HiddenKey, || name.into());
        }
        let found = tallies.findings();
        assert_eq!((found[0].count, found[0].more), (3, false));
        assert_eq!(found[0].examples, ["/a", "/b"]);
        let mut tallies = Tallies::new(2);
        ["/a", "/b", "/c"].iter().for_each(|name| tallies.add(Topic::HiddenKey, || (*name).into()));
        tallies.example(Topic::HiddenKey, || panic!("made in vain"));
        let found = tallies.findings();
        assert_eq!((found[0].examples.len(), found[0].more), (2, true));
    }

    #[test]
    fn a_count_of_0_is_no_finding() {
        let mut tallies = Tallies::new(2);
        tallies.count(Topic::Queue, 0);
        assert!(tallies.findings().is_empty());
    }
}
