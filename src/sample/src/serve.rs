//! One SFTP session over a directory tree, read-only.
//!
//! Clients see the tree as `/`. A path is made absolute and free of `.` and `..` as text first;
//! then the real path must lie below the real root, so that a symbolic link never leads out.
//! All calls block on the disk: they run off the runtime's workers.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::wire::{self, Ask, Attrs, Code};

/// Handles one session may hold open.
const MAX_HANDLES: usize = 1024;

/// Names in one READDIR answer.
const NAMES_PER_ANSWER: usize = 100;

/// Bytes of answers made before they are sent; the requests behind them wait.
const MAX_ANSWER_BYTES: usize = 2 * 1024 * 1024;

/// Bytes of names in one READDIR answer.
const NAME_BYTES_PER_ANSWER: usize = wire::MAX_PACKET_BYTES / 2;

enum Open {
    File(File),
    Dir { entries: ReadDir, done: bool },
}

/// The state of one client's session.
pub(crate) struct Serve {
    root: PathBuf,
    greeted: bool,
    next_handle: u64,
    open: HashMap<u64, Open>,
}

/// The client broke the protocol; the session ends.
#[derive(Debug)]
pub(crate) struct Broken;

type Answer = Result<Vec<u8>, Code>;

impl Serve {
    /// A session over `root`, which must be a real path.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, greeted: false, next_handle: 0, open: HashMap::new() }
    }

    /// Answers whole packets of `input` in order, appending to `out`, until the input or the
    /// room for answers ends; returns the bytes used.
    pub(crate) fn answer_all(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut used = 0;
        while out.len() < MAX_ANSWER_BYTES {
            let rest = input.get(used..).unwrap_or_default();
            let Some((body, len)) = wire::split_packet(rest).map_err(|_| Broken)? else { break };
            out.extend(self.answer(body)?);
            used += len;
        }
        Ok(used)
    }

    fn answer(&mut self, body: &[u8]) -> Result<Vec<u8>, Broken> {
        if let Some(version) = wire::parse_init(body).map_err(|_| Broken)? {
            if self.greeted || version < wire::VERSION {
                return Err(Broken);
            }
            self.greeted = true;
            return Ok(wire::version());
        }
        if !self.greeted {
            return Err(Broken);
        }
        let (id, ask) = match wire::parse(body) {
            Ok(parsed) => parsed,
            Err(_) => return Ok(wire::status(0, Code::BadMessage)),
        };
        Ok(self.act(id, ask).unwrap_or_else(|code| wire::status(id, code)))
    }

    fn act(&mut self, id: u32, ask: Ask) -> Answer {
        match ask {
            Ask::Open(path) => self.open_file(id, &path),
            Ask::Close(handle) => {
                let number = number_of(&handle).ok_or(Code::Failure)?;
                self.open.remove(&number).ok_or(Code::Failure)?;
                Err(Code::Ok)
            }
            Ask::Read { handle, offset, len } => self.read(id, &handle, offset, len),
            Ask::Lstat(path) => {
                let meta = fs::symlink_metadata(self.entry(&path)?).map_err(|e| code(&e))?;
                Ok(wire::attrs(id, &Attrs::of(&meta)))
            }
            Ask::Stat(path) => {
                let meta = fs::metadata(self.target(&path)?).map_err(|e| code(&e))?;
                Ok(wire::attrs(id, &Attrs::of(&meta)))
            }
            Ask::Fstat(handle) => match self.held(&handle)? {
                Open::File(file) => {
                    let meta = file.metadata().map_err(|e| code(&e))?;
                    Ok(wire::attrs(id, &Attrs::of(&meta)))
                }
                Open::Dir { .. } => Err(Code::Failure),
            },
            Ask::Opendir(path) => {
                let entries = fs::read_dir(self.target(&path)?).map_err(|e| code(&e))?;
                self.hold(id, Open::Dir { entries, done: false })
            }
            Ask::Readdir(handle) => self.read_names(id, &handle),
            Ask::Realpath(path) => Ok(wire::bare_name(id, &absolute(&path))),
            Ask::Readlink(path) => {
                let target = fs::read_link(self.entry(&path)?).map_err(|e| code(&e))?;
                Ok(wire::bare_name(id, target.as_os_str().as_bytes()))
            }
            Ask::Change => Err(Code::PermissionDenied),
            Ask::Unknown => Err(Code::OpUnsupported),
        }
    }

    /// The real path behind a client's path, every link followed.
    fn target(&self, path: &[u8]) -> Result<PathBuf, Code> {
        let wanted = self.root.join(below_root(path));
        let real = fs::canonicalize(wanted).map_err(|e| code(&e))?;
        if real.starts_with(&self.root) { Ok(real) } else { Err(Code::PermissionDenied) }
    }

    /// As [`Self::target`], but a link in last place is not followed.
    fn entry(&self, path: &[u8]) -> Result<PathBuf, Code> {
        let absolute = absolute(path);
        let cut = absolute.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let (parent, name) = absolute.split_at(cut);
        let parent = self.target(parent)?;
        Ok(parent.join(OsStr::from_bytes(name.strip_prefix(b"/").unwrap_or(name))))
    }

    fn open_file(&mut self, id: u32, path: &[u8]) -> Answer {
        let real = self.target(path)?;
        // A FIFO would block the open for ever.
        if !fs::metadata(&real).map_err(|e| code(&e))?.is_file() {
            return Err(Code::Failure);
        }
        let file = File::open(real).map_err(|e| code(&e))?;
        self.hold(id, Open::File(file))
    }

    fn hold(&mut self, id: u32, open: Open) -> Answer {
        if self.open.len() >= MAX_HANDLES {
            return Err(Code::Failure);
        }
        self.next_handle += 1;
        self.open.insert(self.next_handle, open);
        Ok(wire::handle(id, &self.next_handle.to_be_bytes()))
    }

    fn held(&mut self, handle: &[u8]) -> Result<&mut Open, Code> {
        let number = number_of(handle).ok_or(Code::Failure)?;
        self.open.get_mut(&number).ok_or(Code::Failure)
    }

    fn read(&mut self, id: u32, handle: &[u8], offset: u64, len: u32) -> Answer {
        let Open::File(file) = self.held(handle)? else { return Err(Code::Failure) };
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(wire::MAX_READ_BYTES);
        let mut buf = vec![0; len];
        // One read may be short before the end; SFTP clients take a short answer for the end of
        // a pipeline, so the buffer is filled.
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(code(&e)),
            }
        }
        match buf.get(..done) {
            Some(bytes) if done > 0 || len == 0 => Ok(wire::data(id, bytes)),
            _ => Err(Code::Eof),
        }
    }

    fn read_names(&mut self, id: u32, handle: &[u8]) -> Answer {
        let Open::Dir { entries, done } = self.held(handle)? else { return Err(Code::Failure) };
        let (mut names, mut bytes) = (Vec::new(), 0);
        while !*done && names.len() < NAMES_PER_ANSWER && bytes < NAME_BYTES_PER_ANSWER {
            let Some(entry) = entries.next() else {
                *done = true;
                break;
            };
            let entry = entry.map_err(|e| code(&e))?;
            // An entry that vanished meanwhile is left out.
            let Ok(meta) = entry.metadata() else { continue };
            let name = entry.file_name().into_vec();
            bytes += Attrs::name_bytes(&name);
            names.push((name, Attrs::of(&meta)));
        }
        if names.is_empty() { Err(Code::Eof) } else { Ok(wire::names(id, &names)) }
    }
}

fn number_of(handle: &[u8]) -> Option<u64> {
    handle.try_into().ok().map(u64::from_be_bytes)
}

fn code(error: &io::Error) -> Code {
    match error.kind() {
        io::ErrorKind::NotFound => Code::NoSuchFile,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::Failure,
    }
}

/// A client's path as an absolute one without `.`, `..` and doubled slashes.
fn absolute(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    [b"/", &parts.join(&b'/')[..]].concat()
}

fn below_root(path: &[u8]) -> PathBuf {
    let absolute = absolute(path);
    Path::new(OsStr::from_bytes(absolute.strip_prefix(b"/").unwrap_or(&absolute))).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_never_climb_above_the_root() {
        for (given, want) in [
            ("", "/"),
            (".", "/"),
            ("a/b", "/a/b"),
            ("/a//b/./c/", "/a/b/c"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/../../b", "/b"),
        ] {
            assert_eq!(absolute(given.as_bytes()), want.as_bytes(), "{given}");
        }
    }

    #[test]
    fn links_out_of_the_tree_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret.txt"), "x").unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("in.txt"), "inside").unwrap();
        std::os::unix::fs::symlink("../secret.txt", root.join("out.txt")).unwrap();
        std::os::unix::fs::symlink("in.txt", root.join("link.txt")).unwrap();
        let serve = Serve::new(fs::canonicalize(&root).unwrap());
        assert_eq!(serve.target(b"/out.txt"), Err(Code::PermissionDenied));
        assert_eq!(serve.target(b"/link.txt").unwrap(), serve.root.join("in.txt"));
        assert_eq!(serve.entry(b"/link.txt").unwrap(), serve.root.join("link.txt"));
        assert_eq!(serve.target(b"/none"), Err(Code::NoSuchFile));
    }

    #[test]
    fn a_session_that_does_not_greet_is_ended() {
        let mut serve = Serve::new(PathBuf::from("/"));
        let ask = wire::handle(1, b"x");
        assert!(serve.answer_all(&ask, &mut Vec::new()).is_err());
    }
}
