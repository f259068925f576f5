//! What others ask a group: may offsets be committed or read, how does it stand.

use super::super::types::{CommitCheck, CommitVia, FetchCheck, GroupError, GroupStats};
use super::Group;
use super::types::ConsumerDescription;

impl Group {
    /// Whether offsets may be committed: by a member in its epoch; from outside while nobody is
    /// in the group.
    pub(in crate::groups) fn check_commit(&self, check: &CommitCheck) -> Result<(), GroupError> {
        if check.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&check.member).ok_or(GroupError::UnknownMemberId)?;
        if check.via == CommitVia::OldOffsetCommit {
            return Err(GroupError::UnsupportedVersion);
        }
        if member.epoch == check.generation {
            return Ok(());
        }
        Err(match check.via {
            CommitVia::Transaction => GroupError::IllegalGeneration,
            CommitVia::OffsetCommit | CommitVia::OldOffsetCommit => GroupError::StaleMemberEpoch,
        })
    }

    /// Whether offsets may be read: by a member in its epoch, and by whoever says nothing of
    /// members.
    pub(in crate::groups) fn check_fetch(&self, check: &FetchCheck) -> Result<(), GroupError> {
        let Some(id) = &check.member else {
            return if check.epoch < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        let member = self.members.get(id).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch == check.epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }

    pub(in crate::groups) fn stats(&self) -> GroupStats {
        GroupStats { id: self.id.clone(), members: self.members.len(), generation: self.epoch }
    }

    pub(in crate::groups) fn describe(&self) -> ConsumerDescription {
        ConsumerDescription {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: self.assignor().name(),
            members: self.members.iter().map(|(id, member)| member.describe(id)).collect(),
        }
    }
}
