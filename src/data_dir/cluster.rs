//! The identity of a new cluster: its members, and the IDs that etcd computes from peer URLs and token (docs/formats.md 9.6).
//!
//! Must not know where names and URLs come from.

use serde::Serialize;
use sha1::{Digest, Sha1};

use super::json;
use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, MemberId, RaftIndex};

/// A member of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its ID.
    #[serde(serialize_with = "decimal")]
    pub id: MemberId,
    /// Its sorted peer URLs.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Its name; empty until it has started once.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its client URLs, which it publishes when it starts.
    #[serde(rename = "clientURLs", skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

fn decimal<S: serde::Serializer>(id: &MemberId, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(id.0)
}

impl Member {
    /// Creates a member; its ID follows from its peer URLs and the token of the cluster.
    pub fn new(name: &str, peer_urls: &[String], is_learner: bool, token: &str) -> Member {
        let mut peer_urls = peer_urls.to_vec();
        peer_urls.sort();
        let id = MemberId(first_eight(&[peer_urls.concat().as_bytes(), token.as_bytes()]));
        Member { id, peer_urls, is_learner, name: name.into(), client_urls: Vec::new() }
    }

    /// Returns the member as JSON: in the bucket `members`, and in the entry that adds it.
    pub(super) fn json(&self) -> Result<Vec<u8>> {
        json(self)
    }
}

/// The members of a new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Its ID.
    pub id: ClusterId,
    /// By ascending ID.
    members: Vec<Member>,
}

impl Cluster {
    /// Creates a cluster of these members.
    ///
    /// # Errors
    /// [`Reason::Usage`] if two members have one ID, or none votes.
    pub fn new(mut members: Vec<Member>) -> Result<Cluster> {
        members.sort_by_key(|member| member.id);
        let twin = members.windows(2).find(|pair| matches!(pair, [one, other] if one.id == other.id));
        if let Some([one, other]) = twin {
            let message = format!("the members {} and {} have the same peer URLs, so one ID", one.name, other.name);
            return Err(Error::new(Reason::Usage, message));
        }
        if members.iter().all(|member| member.is_learner) {
            return Err(Error::new(Reason::Usage, "a cluster needs a member that votes"));
        }
        let ids: Vec<[u8; 8]> = members.iter().map(|member| member.id.0.to_be_bytes()).collect();
        let id = ClusterId(first_eight(&[ids.as_flattened()]));
        Ok(Cluster { id, members })
    }

    /// Returns the members by ascending ID.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Returns the member with this name.
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// Returns the index of the last entry in the first segment: one entry adds each member.
    pub fn last_index(&self) -> RaftIndex {
        RaftIndex(self.members.len() as u64)
    }

    /// Returns the pairs of the bucket `members`, in the order of their keys.
    ///
    /// # Errors
    /// [`Reason::Internal`].
    pub fn bucket(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        member_rows(&self.members)
    }
}

/// Returns the pairs of the bucket `members` for these members, in the order of their keys.
///
/// # Errors
/// [`Reason::Internal`].
pub fn member_rows(members: &[Member]) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let pair = |member: &Member| Ok((member.id.to_string().into_bytes(), member.json()?));
    let mut pairs = members.iter().map(pair).collect::<Result<Vec<_>>>()?;
    pairs.sort();
    Ok(pairs)
}

/// Returns the first eight bytes of a SHA-1 as a number: etcd's ID of a member or a cluster.
fn first_eight(parts: &[&[u8]]) -> u64 {
    let mut hasher = Sha1::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Vec<String> {
        vec![text.into()]
    }

    #[test]
    fn ids_are_those_of_etcd() {
        // As a server prints them that starts with `--name default` and no other option.
        let member = Member::new("default", &url("http://localhost:2380"), false, "etcd-cluster");
        assert_eq!(member.id.to_string(), "8e9e05c52164694d");
        let cluster = Cluster::new(vec![member]).unwrap();
        assert_eq!(cluster.id.to_string(), "cdf818194e3a8c32");
        let (key, value) = cluster.bucket().unwrap().remove(0);
        assert_eq!(key, b"8e9e05c52164694d");
        let expected = r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default"}"#;
        assert_eq!(String::from_utf8(value).unwrap(), expected);
    }

    #[test]
    fn the_order_of_names_does_not_matter() {
        let of = |name: &str, port: u16| Member::new(name, &url(&format!("http://h:{port}")), port == 3, "t");
        let cluster = Cluster::new(vec![of("a", 1), of("b", 2), of("c", 3)]).unwrap();
        assert_eq!(cluster, Cluster::new(vec![of("c", 3), of("b", 2), of("a", 1)]).unwrap());
        assert!(cluster.members().is_sorted_by_key(|member| member.id));
        assert!(cluster.named("c").unwrap().is_learner);
        assert!(Cluster::new(vec![of("a", 1), of("b", 1)]).is_err());
        assert!(Cluster::new(vec![of("c", 3)]).is_err());
    }
}
