//! A directory of this machine as a source.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{DirEntry, Kind, RemoteError, RemoteFile, RemoteFs};
use crate::ident::Stat;

/// The local file system. Symbolic links in last place are never followed.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFs;

fn path_of(raw: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(raw))
}

fn stat_of(meta: &Metadata) -> Stat {
    Stat { size: meta.len(), mtime_s: meta.mtime() }
}

fn error(error: &io::Error) -> RemoteError {
    match error.kind() {
        io::ErrorKind::NotFound => RemoteError::NotFound,
        io::ErrorKind::PermissionDenied => RemoteError::PermissionDenied,
        _ => RemoteError::File(error.to_string()),
    }
}

impl RemoteFs for LocalFs {
    fn list(
        &mut self,
        dir: &[u8],
        each: &mut dyn FnMut(DirEntry) -> ControlFlow<()>,
    ) -> Result<(), RemoteError> {
        for entry in fs::read_dir(path_of(dir)).map_err(|e| error(&e))? {
            let entry = entry.map_err(|e| error(&e))?;
            // An entry that vanished meanwhile is left out.
            let Ok(meta) = entry.metadata() else { continue };
            let kind = match meta.file_type() {
                t if t.is_symlink() => Kind::Symlink,
                t if t.is_dir() => Kind::Dir,
                t if t.is_file() => Kind::File,
                _ => Kind::Other,
            };
            let name = entry.file_name().into_vec();
            if each(DirEntry { name, kind, stat: stat_of(&meta) }).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn open(&mut self, path: &[u8]) -> Result<Box<dyn RemoteFile + '_>, RemoteError> {
        let meta = fs::symlink_metadata(path_of(path)).map_err(|e| error(&e))?;
        if !meta.is_file() {
            return Err(RemoteError::File("not a regular file".to_owned()));
        }
        Ok(Box::new(LocalFile(File::open(path_of(path)).map_err(|e| error(&e))?)))
    }

    fn stat(&mut self, path: &[u8]) -> Result<Stat, RemoteError> {
        fs::symlink_metadata(path_of(path)).map(|m| stat_of(&m)).map_err(|e| error(&e))
    }
}

struct LocalFile(File);

impl RemoteFile for LocalFile {
    fn stat(&mut self) -> Result<Stat, RemoteError> {
        self.0.metadata().map(|m| stat_of(&m)).map_err(|e| error(&e))
    }

    fn read(&mut self, buf: &mut [u8]) -> Result<usize, RemoteError> {
        loop {
            match self.0.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(|e| error(&e)),
            }
        }
    }
}
