//! `node.json`: who a data directory belongs to.
//!
//! Written before anything else is, and again when the cluster is born or joined. The Raft id is
//! minted per data directory: a wiped disk must never return under its old id, or it could vote
//! as if it still held what it forgot.

use std::io;
use std::path::{Path, PathBuf};

use base::{Env, NodeId};
use serde::{Deserialize, Serialize};

use crate::net::Identity;

/// The format that this program writes. It opens this one and older ones.
pub const FORMAT: u32 = 1;
const FILE: &str = "node.json";
const MAX_BYTES: u64 = 64 * 1024;

/// Why a data directory cannot be used. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file is unreadable.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
    /// The file is damaged.
    #[error("{path}: not a valid node.json: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer program.
    #[error(
        "{path}: data directory has format {found}, this program knows formats \
         up to {FORMAT}; install a newer trine"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Belongs to another node of the configuration.
    #[error(
        "{path}: data directory belongs to node {found}, the configuration says node {expected}"
    )]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who wants to use it.
        expected: NodeId,
    },
    /// Belongs to a node of another cluster.
    #[error(
        "{path}: data directory belongs to cluster \"{found}\", the configuration says \
         \"{expected}\""
    )]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who wants to use it.
        expected: String,
    },
    /// The number of data groups is fixed when the cluster is born.
    #[error(
        "{path}: the cluster was born with {found} data groups, the configuration says \
         {expected}; set raft.data_groups = {found}"
    )]
    OtherGroups {
        /// The file.
        path: PathBuf,
        /// Born with.
        found: u16,
        /// Configured.
        expected: u16,
    },
}

/// Whose a data directory must be, by the configuration.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The cluster's name.
    pub cluster: String,
    /// The node's slot.
    pub node: NodeId,
    /// Number of data groups.
    pub data_groups: u16,
}

/// What `node.json` holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Format of the data directory.
    pub format: u32,
    /// Slot of the node: 1, 2 or 3.
    pub node: u16,
    /// Raft id, minted when the directory was made.
    pub raft_id: u64,
    /// The cluster as 32 hex digits; none before birth.
    pub cluster: Option<String>,
    /// The cluster's name; none in a directory made before names were kept, which takes the
    /// configured one.
    #[serde(default)]
    pub name: Option<String>,
    /// Number of data groups.
    pub data_groups: u16,
    /// Set on the node that gives birth until every group is initialised: Raft ids by slot.
    #[serde(default)]
    pub giving_birth: Option<Vec<(u16, u64)>>,
}

impl NodeFile {
    /// Reads the file, or mints an identity for a blank directory without writing it yet.
    pub fn load_or_mint(env: &Env, dir: &Path, owner: &Owner) -> Result<Self, IdentityError> {
        let path = dir.join(FILE);
        let io = |source| IdentityError::Io { path: path.clone(), source };
        if !env.disk.exists(&path).map_err(io)? {
            return Ok(Self {
                format: FORMAT,
                node: owner.node.0,
                // Never 0, and small enough for every JSON reader.
                raft_id: (env.random.next_u64() >> 12) | 1,
                cluster: None,
                name: Some(owner.cluster.clone()),
                data_groups: owner.data_groups,
                giving_birth: None,
            });
        }
        let bytes = env.disk.read(&path, MAX_BYTES).map_err(io)?;
        Self::check(&bytes, &path, owner)
    }

    fn check(bytes: &[u8], path: &Path, owner: &Owner) -> Result<Self, IdentityError> {
        let path = path.to_owned();
        let damaged = |e: serde_json::Error| e.to_string();
        // The format comes first: a newer file may look different in all else.
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        match serde_json::from_slice::<Format>(bytes) {
            Ok(Format { format }) if format > FORMAT => {
                return Err(IdentityError::Newer { path, found: format });
            }
            Ok(_) => {}
            Err(e) => return Err(IdentityError::Damaged { path, reason: damaged(e) }),
        }
        let mut file: Self = match serde_json::from_slice(bytes) {
            Ok(file) => file,
            Err(e) => return Err(IdentityError::Damaged { path, reason: damaged(e) }),
        };
        let name = file.name.get_or_insert_with(|| owner.cluster.clone());
        if *name != owner.cluster {
            let (found, expected) = (name.clone(), owner.cluster.clone());
            return Err(IdentityError::OtherCluster { path, found, expected });
        }
        if file.node != owner.node.0 {
            let (found, expected) = (NodeId(file.node), owner.node);
            return Err(IdentityError::OtherNode { path, found, expected });
        }
        if file.data_groups != owner.data_groups {
            let (found, expected) = (file.data_groups, owner.data_groups);
            return Err(IdentityError::OtherGroups { path, found, expected });
        }
        if file.cluster.is_some() && file.cluster_bytes().is_none() {
            let reason = "cluster is not 32 hex digits".to_owned();
            return Err(IdentityError::Damaged { path, reason });
        }
        Ok(file)
    }

    /// Writes the file durably, unless it says the same already: a node must be able to start on
    /// a full disk.
    pub fn save(&self, env: &Env, dir: &Path) -> io::Result<()> {
        env.disk.create_dir_all(dir)?;
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let path = dir.join(FILE);
        if env.disk.exists(&path)? && env.disk.read(&path, MAX_BYTES)? == text {
            return Ok(());
        }
        env.disk.write_durably(&path, &text)
    }

    /// What the node says of itself to peers.
    pub fn identity(&self) -> Identity {
        let cluster = self.cluster_bytes().unwrap_or_default();
        Identity { node: NodeId(self.node), raft_id: self.raft_id, cluster }
    }

    /// The cluster's 16 bytes; `None` before birth.
    pub fn cluster_bytes(&self) -> Option<[u8; 16]> {
        let value = u128::from_str_radix(self.cluster.as_deref()?, 16).ok()?;
        (self.cluster.as_deref()?.len() == 32).then_some(value.to_be_bytes())
    }

    /// Sets the cluster.
    pub fn set_cluster(&mut self, cluster: [u8; 16]) {
        self.cluster = Some(format!("{:032x}", u128::from_be_bytes(cluster)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { cluster: "c".to_owned(), node: NodeId(1), data_groups: 6 }
    }

    fn check(text: &str) -> String {
        match NodeFile::check(text.as_bytes(), Path::new("/d/node.json"), &owner()) {
            Ok(file) => format!("{file:?}"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn foreign_directories_are_refused_with_a_reason() {
        let newer = check(r#"{"format":2,"shape":"new"}"#);
        assert!(newer.contains("format 2") && newer.contains("newer trine"), "{newer}");
        let other = check(r#"{"format":1,"node":2,"raft_id":7,"cluster":null,"data_groups":6}"#);
        assert!(other.contains("belongs to node 2"), "{other}");
        let cluster =
            check(r#"{"format":1,"node":1,"raft_id":7,"cluster":null,"name":"d","data_groups":6}"#);
        assert!(cluster.contains(r#"cluster "d", the configuration says "c""#), "{cluster}");
        let groups = check(r#"{"format":1,"node":1,"raft_id":7,"cluster":null,"data_groups":3}"#);
        assert!(groups.contains("born with 3 data groups"), "{groups}");
        assert!(check("{").contains("not a valid node.json"));
        let unnamed = check(r#"{"format":1,"node":1,"raft_id":7,"cluster":null,"data_groups":6}"#);
        assert!(unnamed.contains(r#"name: Some("c")"#), "{unnamed}");
    }

    #[test]
    fn the_identity_of_a_directory_never_changes() {
        let env = Env::real();
        let dir = tempfile::tempdir().unwrap();
        let load = || NodeFile::load_or_mint(&env, dir.path(), &owner()).unwrap();
        let mut minted = load();
        assert_ne!(minted.raft_id, load().raft_id, "each blank directory gets its own id");
        minted.set_cluster([0xab; 16]);
        minted.save(&env, dir.path()).unwrap();
        assert_eq!(load(), minted);
        assert_eq!(load().cluster_bytes(), Some([0xab; 16]));
    }
}
