//! The new cluster of `--to data-dir`: names and peer URLs as `etcdutl snapshot restore` takes them.
//!
//! Parses and checks text. Must not know how an ID is computed, or which files a member has.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a member without `--name`, as in etcd.
const DEFAULT_NAME: &str = "default";
/// The token of a cluster without `--initial-cluster-token`, as in `etcdutl snapshot restore`.
const DEFAULT_TOKEN: &str = "etcd-cluster";
/// The peer URL of a member without `--initial-advertise-peer-urls`, as in etcd.
const DEFAULT_PEER_URL: &str = "http://localhost:2380";

/// The cluster that boots from the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// The member whose directory is written; `None` for the only member, or for the member of the source.
    pub name: Option<String>,
    /// All members; `None` for a cluster of one member.
    pub initial_cluster: Option<InitialCluster>,
    /// The token that makes the IDs of the cluster unique.
    pub token: String,
    /// The peer URLs of the member; `None` for those of the initial cluster.
    pub advertise_peer_urls: Option<PeerUrls>,
    /// The names of members that do not vote.
    pub learners: Vec<String>,
    /// Write a directory for each member.
    pub all_members: bool,
    /// Take names, peer URLs and learners from the members in the source.
    pub members_from_source: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            name: None,
            initial_cluster: None,
            token: DEFAULT_TOKEN.into(),
            advertise_peer_urls: None,
            learners: Vec::new(),
            all_members: false,
            members_from_source: false,
        }
    }
}

impl ClusterOptions {
    /// Returns the members by name, and their sorted peer URLs; `None` if the source has to tell them.
    ///
    /// # Errors
    /// The options contradict each other, in words for the operator.
    pub fn members(&self) -> Result<Option<InitialCluster>, String> {
        if self.members_from_source {
            return match (&self.initial_cluster, &self.advertise_peer_urls, self.learners.as_slice()) {
                (None, None, []) => Ok(None),
                _ => Err("--members-from-source excludes --initial-cluster, --initial-advertise-peer-urls and \
                          --learner, which name the members"
                    .into()),
            };
        }
        let name = self.name.as_deref().unwrap_or(DEFAULT_NAME);
        let advertised = match &self.advertise_peer_urls {
            Some(urls) => urls.clone(),
            None => DEFAULT_PEER_URL.parse()?,
        };
        let Some(cluster) = &self.initial_cluster else {
            return Ok(Some(InitialCluster(BTreeMap::from([(name.to_string(), advertised)]))));
        };
        let chosen = self.chosen(cluster)?;
        if let (Some(advertised), Some(chosen)) = (&self.advertise_peer_urls, chosen) {
            let urls = cluster.0.get(chosen);
            if urls != Some(advertised) {
                let urls = urls.map_or(String::new(), ToString::to_string);
                return Err(format!(
                    "--initial-advertise-peer-urls {advertised} differs from {urls}, which --initial-cluster names for {chosen}"
                ));
            }
        }
        for learner in &self.learners {
            if !cluster.0.contains_key(learner) {
                return Err(format!("--learner {learner:?} is not a member of --initial-cluster"));
            }
        }
        if cluster.0.keys().all(|name| self.learners.contains(name)) {
            return Err("every member is a learner, and a cluster needs a voter".into());
        }
        Ok(Some(cluster.clone()))
    }

    /// Returns the member whose directory is written; `None` for all of them.
    fn chosen<'c>(&'c self, cluster: &'c InitialCluster) -> Result<Option<&'c str>, String> {
        if self.all_members {
            return match &self.name {
                Some(_) => Err("--all-members writes every directory, and --name chooses one".into()),
                None => Ok(None),
            };
        }
        let name = match (&self.name, cluster.0.len()) {
            (Some(name), _) => name,
            (None, 1) => return Ok(cluster.0.keys().next().map(String::as_str)),
            (None, _) if cluster.0.contains_key(DEFAULT_NAME) => return Ok(Some(DEFAULT_NAME)),
            (None, _) => {
                return Err("the cluster has several members, and no option chooses one".into());
            }
        };
        match cluster.0.contains_key(name) {
            true => Ok(Some(name)),
            false => Err(format!("--name {name:?} is not a member of the cluster")),
        }
    }

    /// Returns the names of the members whose directories are written, out of all members.
    ///
    /// # Errors
    /// The options choose none, in words for the operator.
    pub fn written<'c>(&'c self, cluster: &'c InitialCluster) -> Result<Vec<&'c str>, String> {
        Ok(match self.chosen(cluster)? {
            Some(name) => vec![name],
            None => cluster.0.keys().map(String::as_str).collect(),
        })
    }
}

/// The members of a cluster by name, as `--initial-cluster` names them: `a=http://10.0.0.1:2380,b=http://10.0.0.2:2380`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct InitialCluster(pub BTreeMap<String, PeerUrls>);

impl FromStr for InitialCluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut urls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in text.split(',') {
            let Some((name, url)) = pair.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
                return Err(format!("expected NAME=PEER_URL, found {pair:?}"));
            };
            urls.entry(name.trim().to_string()).or_default().push(url.to_string());
        }
        let mut members = BTreeMap::new();
        let mut seen: BTreeMap<String, String> = BTreeMap::new();
        for (name, urls) in urls {
            let urls = PeerUrls::new(&urls)?;
            for url in &urls.0 {
                if let Some(other) = seen.insert(url.clone(), name.clone()).filter(|other| *other != name) {
                    return Err(format!("{other} and {name} have the same peer URL {url}"));
                }
            }
            check_name(&name)?;
            members.insert(name, urls);
        }
        Ok(InitialCluster(members))
    }
}

/// Refuses a name that cannot be the name of a directory.
///
/// # Errors
/// Why, in words for the operator.
pub fn check_name(name: &str) -> Result<(), String> {
    let plain = !name.chars().any(char::is_control) && !name.contains(['/', ',', '=']) && name != "." && name != "..";
    // `--all-members` writes OUT/NAME, and a data directory has a folder `member`.
    if plain && name != "member" && !name.is_empty() && name.len() <= 200 {
        return Ok(());
    }
    Err(format!("{name:?} cannot be the name of a member and of its directory"))
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.0.iter().flat_map(|(name, urls)| urls.0.iter().map(move |url| format!("{name}={url}")));
        f.write_str(&pairs.collect::<Vec<_>>().join(","))
    }
}

/// The peer URLs of one member, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PeerUrls(Vec<String>);

impl PeerUrls {
    /// Checks and sorts peer URLs.
    ///
    /// # Errors
    /// etcd would refuse one of them, in words for the operator.
    pub fn new(urls: &[String]) -> Result<PeerUrls, String> {
        let mut checked = urls.iter().map(|url| peer_url(url)).collect::<Result<Vec<_>, _>>()?;
        checked.sort();
        checked.dedup();
        if checked.is_empty() { Err("expected a peer URL".into()) } else { Ok(PeerUrls(checked)) }
    }

    /// Returns the URLs, sorted.
    pub fn urls(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for PeerUrls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        PeerUrls::new(&text.split(',').map(str::to_string).collect::<Vec<_>>())
    }
}

impl fmt::Display for PeerUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Checks a peer URL as etcd does: a scheme, a host and a port, and no path.
fn peer_url(text: &str) -> Result<String, String> {
    let url = text.trim();
    let refused = |what: &str| format!("{url:?} is not a peer URL: {what}");
    let Some((scheme, rest)) = url.split_once("://") else { return Err(refused("expected SCHEME://HOST:PORT")) };
    if !["http", "https", "unix", "unixs"].contains(&scheme) {
        return Err(refused("the scheme must be http, https, unix or unixs, in lower case"));
    }
    if rest.contains(['/', '?', '#', '@', '"', '\\', ',']) || rest.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err(refused("expected HOST:PORT after the scheme, and no path"));
    }
    let Some((host, port)) = rest.rsplit_once(':') else { return Err(refused("the port is missing")) };
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.contains(':') && !bracketed {
        return Err(refused("an IPv6 address must be in brackets"));
    }
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = |host: &str| !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if !(bracketed && address.parse::<Ipv6Addr>().is_ok() || is_host(host)) {
        return Err(refused("the host must be a name or an address"));
    }
    if port.parse::<u16>().is_err() || port.starts_with('+') {
        return Err(refused("the port must be a number up to 65535"));
    }
    Ok(url.to_string())
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )*};
}

as_text!(InitialCluster, PeerUrls);

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> ClusterOptions {
        ClusterOptions { initial_cluster: Some(text.parse().unwrap()), ..Default::default() }
    }

    #[test]
    fn a_cluster_is_read_as_etcd_reads_it() {
        let parsed: InitialCluster = "b=http://h:2,a=https://[::1]:1 ,b=http://g:3".parse().unwrap();
        assert_eq!(parsed.to_string(), "a=https://[::1]:1,b=http://g:3,b=http://h:2");
        for bad in [
            "",
            "a",
            "=http://h:1",
            "a=h:1",
            "a=ftp://h:1",
            "a=http://h",
            "a=http://h:x",
            "a=http://h:1/",
            "a=http://::1:2",
            "a=http://h:1,b=http://h:1",
            "a/b=http://h:1",
            "..=http://h:1",
            "a=http://h:1,",
            "a=HTTP://h:1",
        ] {
            assert!(bad.parse::<InitialCluster>().is_err(), "{bad}");
        }
    }

    #[test]
    fn without_options_it_is_one_default_member() {
        let options = ClusterOptions::default();
        let members = options.members().unwrap().unwrap();
        assert_eq!(members.to_string(), "default=http://localhost:2380");
        assert_eq!(options.written(&members).unwrap(), ["default"]);
        let named = ClusterOptions { name: Some("n".into()), ..Default::default() };
        assert_eq!(named.members().unwrap().unwrap().to_string(), "n=http://localhost:2380");
    }

    #[test]
    fn contradictions_are_refused() {
        let three = "a=http://h:1,b=http://h:2,c=http://h:3";
        assert!(cluster(three).members().unwrap_err().contains("no option"));
        let all = ClusterOptions { all_members: true, ..cluster(three) };
        assert_eq!(all.written(&all.members().unwrap().unwrap()).unwrap(), ["a", "b", "c"]);
        let named = |name: &str| ClusterOptions { name: Some(name.into()), ..cluster(three) };
        assert_eq!(named("b").written(&three.parse().unwrap()).unwrap(), ["b"]);
        assert!(named("x").members().is_err());
        let with = |change: fn(&mut ClusterOptions)| {
            let mut options = named("b");
            change(&mut options);
            options.members()
        };
        assert!(with(|o| o.all_members = true).is_err());
        assert!(with(|o| o.advertise_peer_urls = Some("http://h:9".parse().unwrap())).is_err());
        assert!(with(|o| o.advertise_peer_urls = Some("http://h:2".parse().unwrap())).is_ok());
        assert!(with(|o| o.learners = vec!["x".into()]).is_err());
        assert!(with(|o| o.learners = ["a", "b", "c"].map(String::from).into()).is_err());
        assert!(with(|o| o.members_from_source = true).is_err());
    }
}
