//! Identifiers that more than one crate speaks of.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a node as its users see it: 1, 2 or 3. Kafka shows it as broker id.
///
/// It is not the Raft node id, which is minted per data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u16);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A Raft group. `m0` is 0, `fs` is 1, the data groups follow from 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The metadata group.
    pub const M0: Self = Self(0);
    /// The namespace group of the block store.
    pub const FS: Self = Self(1);

    /// The data group with this number, counted from 0.
    pub fn data(number: u16) -> Self {
        Self(number.saturating_add(2))
    }

    /// The number of this data group counted from 0; `None` for `m0` and `fs`.
    pub fn data_number(self) -> Option<u16> {
        self.0.checked_sub(2)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.data_number()) {
            (Self::M0, _) => f.write_str("m0"),
            (Self::FS, _) => f.write_str("fs"),
            (_, Some(number)) => write!(f, "d{number}"),
            (_, None) => write!(f, "g{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_have_short_names() {
        let names: Vec<String> = [GroupId::M0, GroupId::FS, GroupId::data(0), GroupId::data(5)]
            .map(|g| g.to_string())
            .into();
        assert_eq!(names, ["m0", "fs", "d0", "d5"]);
    }
}
