//! What may come out of some members' directories: a state that the cluster went through or could go on to, never
//! another one; and all that was acknowledged, where nothing says that it may be missing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use etcdlift::error::{Kind, Reason};
use etcdlift::internals::fuzzing::model::Model;
use etcdlift::internals::pipeline::export;
use etcdlift::options::ExportOptions;

use super::cluster::{Cluster, Entry};
use super::damage::Damage;

/// A directory that is given.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) member: usize,
    pub(super) path: PathBuf,
    pub(super) damage: Option<Damage>,
}

impl Given {
    pub(super) fn is_hurt(&self) -> bool {
        self.damage.is_some_and(|damage| damage.is_visible)
    }
}

/// Why even `--salvage` may have nothing to start from.
const NO_START: [Reason; 2] = [Reason::SourceEmpty, Reason::WalMissing];

type State = BTreeMap<String, (String, u64, u64)>;

/// Converts, and says what kind of outcome it was.
///
/// # Errors
/// Why the outcome is wrong.
pub(super) fn judge(cluster: &Cluster, given: &[Given], salvage: bool) -> Result<String, String> {
    let hurt = given.iter().any(|given| given.damage.is_some());
    let damage: Vec<&str> = given.iter().filter_map(|given| given.damage.map(|damage| damage.what)).collect();
    let what = match damage[..] {
        [] => "sound".to_string(),
        [what] => what.to_string(),
        _ => "several damaged".to_string(),
    };
    let mut lines = Vec::new();
    let mut print = |bytes: &[u8]| {
        lines.extend_from_slice(bytes);
        Ok(())
    };
    let exported = match export(&options(given, salvage), &mut print, &|| Ok(())) {
        Ok(exported) => exported,
        Err(error) => {
            return match error.kind() {
                // There is one history.
                _ if error.reason() == Reason::TwoHistories => Err(format!("two histories: {error:?}")),
                // Salvage takes what there is, unless there is no sound start at all.
                Kind::Refused if salvage && !NO_START.contains(&error.reason()) => {
                    Err(format!("salvage refused: {error:?}"))
                }
                Kind::Damaged | Kind::Refused if hurt => Ok(format!("{what}: refused ({:?})", error.reason())),
                Kind::Empty if error.message().contains("possibly incomplete") => {
                    Ok(format!("{what}: no key, possibly incomplete"))
                }
                Kind::Empty if could_be_empty(cluster, given) => Ok(format!("{what}: no key")),
                _ => Err(format!("refused without damage, or for another reason: {error:?}")),
            };
        }
    };
    let state = parse(&lines);
    let complete = exported.losses.is_empty();
    let least = least(cluster, given, complete);
    let committed = cluster.committed.len() as u64;
    for index in least..=committed {
        if state == expected(&cluster.state_after(cluster.committed[..index as usize].iter())) {
            return Ok(format!("{what}: {}", if complete { "complete" } else { "possibly incomplete" }));
        }
    }
    // Entries that no leader knew to be committed yet, but that every possible leader would commit.
    if let Some(index) = beyond(cluster, given, &state) {
        return match !complete || electable_hold(cluster, index.1, index.0) {
            true => Ok(format!(
                "{what}: {}, beyond the last acknowledged write",
                if complete { "complete" } else { "possibly incomplete" }
            )),
            false => Err(format!("entries up to {} may still be replaced", index.0)),
        };
    }
    let got = (0..=committed)
        .rev()
        .find(|index| state == expected(&cluster.state_after(cluster.committed[..*index as usize].iter())));
    Err(format!(
        "expected the state at {least} to {committed}, found that at {got:?}, with losses {:?} and warnings {:?}",
        exported.losses, exported.warnings
    ))
}

/// A state without keys is told by the exit status alone: one that the directories may be at has none.
fn could_be_empty(cluster: &Cluster, given: &[Given]) -> bool {
    let hurt = given.iter().any(|given| given.damage.is_some());
    let least = if hurt { 0 } else { least(cluster, given, true) };
    (least as usize..=cluster.committed.len())
        .any(|index| expected(&cluster.state_after(cluster.committed[..index].iter())).is_empty())
}

/// The committed index that an outcome must reach at least.
fn least(cluster: &Cluster, given: &[Given], complete: bool) -> u64 {
    let sound: Vec<&Given> = given.iter().filter(|given| !given.is_hurt()).collect();
    if !complete {
        return 0;
    }
    let proven = sound.len() > cluster.members.len() - cluster.majority();
    if proven || sound.len() < given.len() {
        // What is said to be complete has every acknowledged write.
        return cluster.committed.len() as u64;
    }
    // One of several voters may lack later writes, but none of its own files.
    sound.iter().map(|given| cluster.members[given.member].written_commit()).max().unwrap_or(0)
}

/// A state beyond the committed entries: the last index of it, and whose log it is.
fn beyond(cluster: &Cluster, given: &[Given], state: &State) -> Option<(u64, usize)> {
    let committed = cluster.committed.len() as u64;
    given.iter().find_map(|given| {
        let member = &cluster.members[given.member];
        let mut more: Vec<&Entry> = Vec::new();
        let mut index = committed;
        if committed > 0 && !member.holds(committed, cluster.committed.last()?) {
            return None;
        }
        while let Some(entry) = member.entry_on_disk(index + 1) {
            more.push(entry);
            index += 1;
            let entries = cluster.committed.iter().chain(more.iter().copied());
            if *state == expected(&cluster.state_after(entries)) {
                return Some((index, given.member));
            }
        }
        None
    })
}

/// Whether each member that could win an election after a restart of all holds these entries.
pub(super) fn electable_hold(cluster: &Cluster, whose: usize, to: u64) -> bool {
    let electable = cluster.members.iter().filter(|candidate| {
        let votes = cluster.members.iter().filter(|voter| candidate.last_on_disk() >= voter.last_on_disk()).count();
        votes >= cluster.majority()
    });
    let entries: Vec<(u64, &Entry)> = (cluster.committed.len() as u64 + 1..=to)
        .map(|index| (index, cluster.members[whose].entry_on_disk(index).unwrap()))
        .collect();
    electable.into_iter().all(|member| entries.iter().all(|(index, entry)| member.holds(*index, entry)))
}

fn options(given: &[Given], salvage: bool) -> ExportOptions {
    let mut options = ExportOptions::new("", "");
    options.sources = given.iter().map(|given| given.path.clone()).collect();
    options.salvage = salvage;
    options.output = None;
    options
}

fn parse(lines: &[u8]) -> State {
    let values = serde_json::Deserializer::from_slice(lines).into_iter::<serde_json::Value>();
    let files = values.map(Result::unwrap).filter(|line| line["dir"] != true);
    let entry = |line: serde_json::Value| {
        let text = |name: &str| line[name].as_str().unwrap().to_string();
        let index = |name: &str| line[name].as_u64().unwrap();
        (text("key"), (text("value"), index("created_index"), index("modified_index")))
    };
    files.map(entry).collect()
}

fn expected(model: &Model) -> State {
    let nodes = model.nodes.iter().filter_map(|(path, node)| {
        let key = std::str::from_utf8(path.strip_prefix(b"/1")?).unwrap();
        let value = String::from_utf8(node.value.clone()?).unwrap();
        Some((key.to_string(), (value, node.created, node.modified)))
    });
    nodes.collect()
}
