//! Where the demo keeps its things.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sample::SampleFile;

/// Seed of the sample tree: the same files on every machine.
const SEED: u64 = 1;

/// Whether a run can find what an earlier one has collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The cluster is blank: whatever stands in it comes from the files of now.
    First,
    /// Files may have changed or gone since; what was collected of them stays.
    Later,
}

/// The demo's directory; a temporary one goes away at the end.
pub(super) struct Place {
    root: PathBuf,
    pub(super) run: Run,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub(super) fn new(dir: Option<&Path>) -> anyhow::Result<Self> {
        let (root, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("trine-demo-").tempdir()?;
                (made.path().to_owned(), Some(made))
            }
        };
        let sftp = root.join("sftp");
        fs::create_dir_all(&sftp).with_context(|| format!("cannot make {}", sftp.display()))?;
        let root = root.canonicalize()?;
        let run = if root.join("cluster").try_exists()? { Run::Later } else { Run::First };
        Ok(Self { root, run, _temporary: temporary })
    }

    /// Directory of the cluster.
    pub(super) fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// The tree that the SFTP server shows.
    pub(super) fn sample(&self) -> PathBuf {
        self.root.join("sample")
    }

    /// A file of the SFTP server.
    pub(super) fn sftp(&self, name: &str) -> PathBuf {
        self.root.join("sftp").join(name)
    }

    /// The sample files as they are. They are written once: later they are their user's, who may
    /// have changed them.
    pub(super) fn files(&self) -> anyhow::Result<Vec<SampleFile>> {
        let (tree, written) = (self.sample(), self.root.join("sample.written"));
        let shown = || format!("cannot write {}", tree.display());
        if !tree.try_exists()? || !written.try_exists()? {
            fs::create_dir_all(&tree).with_context(shown)?;
            sample::write_tree(&tree, SEED).with_context(shown)?;
            // Last of all: a tree that an end in the middle has cut short has no such file.
            fs::write(&written, "The sample files are complete and not written again.\n")?;
        }
        sample::read_tree(&tree).with_context(|| format!("cannot read {}", tree.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(dir: &Path) -> Place {
        Place::new(Some(dir)).unwrap()
    }

    #[test]
    fn the_files_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = place(dir.path()).files().unwrap();
        let (changed, gone) = ("sample/edge/one-byte.txt", "sample/edge/nul.txt");
        fs::write(dir.path().join(changed), "mine").unwrap();
        fs::remove_file(dir.path().join(gone)).unwrap();
        let second = place(dir.path()).files().unwrap();
        assert_eq!(second.len(), first.len() - 1);
        assert_eq!(fs::read(dir.path().join(changed)).unwrap(), b"mine");
        assert!(second.iter().any(|f| f.path == b"edge/one-byte.txt" && f.len == 4));
    }

    #[test]
    fn an_incomplete_tree_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let first = place(dir.path()).files().unwrap();
        // As after a crash in the middle.
        fs::remove_file(dir.path().join("sample.written")).unwrap();
        fs::remove_file(dir.path().join("sample/edge/nul.txt")).unwrap();
        assert_eq!(place(dir.path()).files().unwrap(), first);
        fs::remove_dir_all(dir.path().join("sample")).unwrap();
        assert_eq!(place(dir.path()).files().unwrap(), first);
    }

    #[test]
    fn a_directory_with_a_cluster_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(place(dir.path()).run, Run::First);
        fs::create_dir(dir.path().join("cluster")).unwrap();
        assert_eq!(place(dir.path()).run, Run::Later);
    }
}
