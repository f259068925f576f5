//! Permission checks as the NameNode makes them.

use super::{Inode, Namespace, Node, Resolved};
use crate::error::{FsError, FsErrorKind};
use crate::types::{Access, Caller};

pub(crate) const STICKY: u16 = 0o1000;

impl Namespace {
    /// The right to walk to the deepest existing directory of a path.
    pub(crate) fn check_traverse(&self, who: &Caller, at: &Resolved<'_>) -> Result<(), FsError> {
        for (depth, id) in at.ids.iter().enumerate() {
            let walked_through = depth < at.names.len() && self.is_dir(*id);
            if walked_through {
                self.check(who, at, depth, Access::EXECUTE)?;
            }
        }
        Ok(())
    }

    /// `access` on the inode at `depth` of the path.
    pub(crate) fn check(
        &self,
        who: &Caller,
        at: &Resolved<'_>,
        depth: usize,
        access: Access,
    ) -> Result<(), FsError> {
        let Some(inode) = at.ids.get(depth).and_then(|id| self.inodes.get(id)) else {
            return Ok(());
        };
        if allowed(who, inode, access) {
            return Ok(());
        }
        let path = super::path_of(at.names.get(..depth).unwrap_or_default());
        Err(denied(who, access, &path, inode))
    }

    /// `access` on the whole path, which must exist.
    pub(crate) fn check_target(
        &self,
        who: &Caller,
        at: &Resolved<'_>,
        access: Access,
    ) -> Result<(), FsError> {
        self.check_traverse(who, at)?;
        self.check(who, at, at.names.len(), access)
    }

    /// The right to add or remove a name in the directory of the last component, or, when that
    /// is missing, in the deepest existing one.
    pub(crate) fn check_parent_write(
        &self,
        who: &Caller,
        at: &Resolved<'_>,
    ) -> Result<(), FsError> {
        self.check_traverse(who, at)?;
        let depth = at.names.len().saturating_sub(1).min(at.ids.len() - 1);
        self.check(who, at, depth, Access::WRITE)
    }

    /// In a sticky directory only the owners of the entry and of the directory may remove it.
    pub(crate) fn check_sticky(&self, who: &Caller, at: &Resolved<'_>) -> Result<(), FsError> {
        let parent = at.parent().and_then(|id| self.inodes.get(&id));
        let target = at.target().and_then(|id| self.inodes.get(&id));
        let (Some(parent), Some(target)) = (parent, target) else { return Ok(()) };
        let sticky = parent.mode & STICKY != 0;
        if who.superuser || !sticky || *parent.owner == *who.user || *target.owner == *who.user {
            return Ok(());
        }
        let text = format!(
            "Permission denied by sticky bit: user={}, path=\"{}\":{}, parent=\"{}\":{}",
            who.user,
            super::path_of(&at.names),
            facts(target),
            at.parent_path(),
            facts(parent),
        );
        Err(FsError::new(FsErrorKind::AccessControl, text))
    }

    /// The right to remove everything below a directory.
    pub(crate) fn check_subtree(&self, who: &Caller, top: u64, path: &str) -> Result<(), FsError> {
        if who.superuser {
            return Ok(());
        }
        let mut stack = vec![top];
        while let Some(id) = stack.pop() {
            let Some(inode) = self.inodes.get(&id) else { continue };
            let Node::Dir(children) = &inode.node else { continue };
            if children.is_empty() {
                continue;
            }
            if !allowed(who, inode, Access::ALL) {
                return Err(denied(who, Access::ALL, path, inode));
            }
            stack.extend(children.values());
        }
        Ok(())
    }

    /// `access` on an inode met during a walk.
    pub(crate) fn check_inode(
        &self,
        who: &Caller,
        inode: &Inode,
        access: Access,
    ) -> Result<(), FsError> {
        if allowed(who, inode, access) {
            return Ok(());
        }
        Err(denied(who, access, &inode.name, inode))
    }

    /// Only the owner and a superuser may go on.
    pub(crate) fn check_owner(&self, who: &Caller, at: &Resolved<'_>) -> Result<(), FsError> {
        self.check_traverse(who, at)?;
        let owner = at.target().and_then(|id| self.inodes.get(&id)).map(|inode| &inode.owner);
        if who.superuser || owner.is_some_and(|owner| **owner == *who.user) {
            return Ok(());
        }
        let path = super::path_of(&at.names);
        let text = format!("Permission denied. user={} is not the owner of inode={path}", who.user);
        Err(FsError::new(FsErrorKind::AccessControl, text))
    }
}

fn allowed(who: &Caller, inode: &Inode, access: Access) -> bool {
    // Groups of users are not known here: a user is a member of the group of the same name.
    let shift = if *inode.owner == *who.user {
        6
    } else if *inode.group == *who.user {
        3
    } else {
        0
    };
    let granted = (inode.mode >> shift) & 7;
    who.superuser || u16::from(access.0) & granted == u16::from(access.0)
}

fn denied(who: &Caller, access: Access, path: &str, inode: &Inode) -> FsError {
    let (user, action) = (&who.user, access.name());
    let text = format!(
        "Permission denied: user={user}, access={action}, inode=\"{path}\":{}",
        facts(inode)
    );
    FsError::new(FsErrorKind::AccessControl, text)
}

fn facts(inode: &Inode) -> String {
    let kind = if matches!(inode.node, Node::Dir(_)) { 'd' } else { '-' };
    format!("{}:{}:{kind}{}", inode.owner, inode.group, symbolic(inode.mode))
}

/// `rwxr-xr-t` of a mode.
fn symbolic(mode: u16) -> String {
    let mut text = String::with_capacity(9);
    for shift in [6, 3, 0] {
        let bits = (mode >> shift) & 7;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (shift == 0 && mode & STICKY != 0, bits & 1 != 0) {
            (true, true) => 't',
            (true, false) => 'T',
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}
