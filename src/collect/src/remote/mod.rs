//! Where files come from, behind a trait: an SFTP server or a local directory.
//!
//! All calls block; a [`RemoteFs`] lives on one thread of its own and is never shared.

pub mod known_hosts;
mod local;
mod sftp;

use std::ops::ControlFlow;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::ident::Stat;
use crate::limits::MAX_FILE_BYTES;

pub use local::LocalFs;
pub use sftp::{SftpFs, SftpOptions};

/// What kind of thing a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket; never opened.
    Other,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Raw name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Size and time.
    pub stat: Stat,
}

/// What can go wrong, by what the collector does about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemoteError {
    /// The connection broke: connect again.
    #[error("connection: {0}")]
    Connection(String),
    /// No connection can be made, which says nothing about any file: try again later.
    #[error("connection: {0}")]
    Unreachable(String),
    /// The server refuses the login: stop after a few tries.
    #[error("login: {0}")]
    Auth(String),
    /// The server is not the one it should be: stop.
    #[error("host key: {0}")]
    HostKey(String),
    /// No such file.
    #[error("no such file")]
    NotFound,
    /// No permission for this file or directory.
    #[error("permission denied")]
    PermissionDenied,
    /// The file changes while it is read: settle again.
    #[error("changed while it was read")]
    Changed(Option<Stat>),
    /// The file itself is at fault.
    #[error("{0}")]
    File(String),
}

/// An open file.
pub trait RemoteFile {
    /// Size and time, from the handle.
    fn stat(&mut self) -> Result<Stat, RemoteError>;
    /// Reads some bytes; 0 at the end.
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, RemoteError>;
}

/// A tree of files. Paths are absolute raw bytes.
pub trait RemoteFs {
    /// Streams a directory's entries, without `.` and `..`, until `each` breaks.
    fn list(
        &mut self,
        dir: &[u8],
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<(), RemoteError>;

    /// Opens a file for reading.
    fn open(&mut self, path: &[u8]) -> Result<Box<dyn RemoteFile + '_>, RemoteError>;

    /// Size and time of a path.
    fn stat(&mut self, path: &[u8]) -> Result<Stat, RemoteError>;

    /// Keeps an idle connection open; an error means that it is broken.
    fn keepalive(&mut self) -> Result<(), RemoteError> {
        Ok(())
    }
}

/// Makes a new connection. Called on the thread that will use it.
pub type Connect = Arc<dyn Fn() -> Result<Box<dyn RemoteFs>, RemoteError> + Send + Sync>;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub sha256: [u8; 32],
}

/// Reads a file whose stat must be `expected` before, during and after: the handle is asked
/// first and last, then the path, and the bytes are counted.
pub fn read_stable(
    fs: &mut dyn RemoteFs,
    path: &[u8],
    expected: Stat,
    buf: &mut [u8],
) -> Result<Content, RemoteError> {
    if expected.size > MAX_FILE_BYTES {
        let text = format!("{} bytes are more than {MAX_FILE_BYTES}", expected.size);
        return Err(RemoteError::File(text));
    }
    let content = {
        let mut file = fs.open(path)?;
        same(file.stat()?, expected)?;
        let content = read_counted(&mut *file, expected, buf)?;
        same(file.stat()?, expected)?;
        content
    };
    same(fs.stat(path)?, expected)?;
    Ok(content)
}

fn same(found: Stat, expected: Stat) -> Result<(), RemoteError> {
    if found == expected { Ok(()) } else { Err(RemoteError::Changed(Some(found))) }
}

fn read_counted(
    file: &mut dyn RemoteFile,
    expected: Stat,
    buf: &mut [u8],
) -> Result<Content, RemoteError> {
    let mut bytes = Vec::with_capacity(usize::try_from(expected.size).unwrap_or_default());
    let mut hash = Sha256::new();
    loop {
        let n = file.read(buf)?;
        let part = buf.get(..n).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        hash.update(part);
        bytes.extend_from_slice(part);
        if bytes.len() as u64 > expected.size {
            return Err(RemoteError::Changed(None));
        }
    }
    if bytes.len() as u64 != expected.size {
        return Err(RemoteError::Changed(None));
    }
    Ok(Content { bytes, sha256: hash.finalize().into() })
}

/// `dir/name`.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    [dir, b"/", name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is not what it was: each call takes the next value.
    struct Moving {
        stats: Vec<Stat>,
        data: Vec<u8>,
    }

    struct MovingFile<'a>(&'a mut Moving, usize);

    impl RemoteFile for MovingFile<'_> {
        fn stat(&mut self) -> Result<Stat, RemoteError> {
            Ok(self.0.stats.remove(0))
        }

        fn read(&mut self, buf: &mut [u8]) -> Result<usize, RemoteError> {
            let rest = &self.0.data[self.1..];
            let n = rest.len().min(buf.len()).min(2);
            buf[..n].copy_from_slice(&rest[..n]);
            self.1 += n;
            Ok(n)
        }
    }

    impl RemoteFs for Moving {
        fn list(
            &mut self,
            _: &[u8],
            _: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
        ) -> Result<(), RemoteError> {
            Ok(())
        }

        fn open(&mut self, _: &[u8]) -> Result<Box<dyn RemoteFile + '_>, RemoteError> {
            Ok(Box::new(MovingFile(self, 0)))
        }

        fn stat(&mut self, _: &[u8]) -> Result<Stat, RemoteError> {
            Ok(self.stats.remove(0))
        }
    }

    #[test]
    fn only_a_file_that_stands_still_is_taken() {
        let at = |size, mtime_s| Stat { size, mtime_s };
        let read = |stats: Vec<Stat>, data: &str| {
            let mut fs = Moving { stats, data: data.into() };
            read_stable(&mut fs, b"/a", at(5, 1), &mut [0; 8]).map(|c| c.bytes)
        };
        let still = at(5, 1);
        assert_eq!(read(vec![still; 3], "12345"), Ok(b"12345".to_vec()));
        for n in 0..3 {
            let mut stats = vec![still; 3];
            stats[n] = at(5, 2);
            assert_eq!(read(stats, "12345"), Err(RemoteError::Changed(Some(at(5, 2)))));
        }
        assert_eq!(read(vec![still; 3], "1234"), Err(RemoteError::Changed(None)));
        assert_eq!(read(vec![still; 3], "123456"), Err(RemoteError::Changed(None)));
    }
}
