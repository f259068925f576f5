//! Recovery: reads all files, rebuilds the logs of the groups, and tells a torn tail from
//! damage. See the module page of the crate for the rules.

use crate::format::{
    BLOCK, Bad, FlushHeader, FlushKind, HEADER_BYTES, Lsn, Record, Salt, decode_flush,
};
use crate::limits::{MAX_FILE_BYTES, SCAN_BYTES};
use crate::replay::Replay;
use crate::store::Store;
use crate::window::Window;
use crate::{WalError, io_error};

/// Where the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) salt: Salt,
    pub(crate) offset: u32,
}

/// What the files hold.
pub(crate) struct Recovered {
    pub(crate) replay: Replay,
    /// The end of the log; `None` when there is none yet.
    pub(crate) tail: Option<Tail>,
    /// Files without valid content behind it, ascending.
    pub(crate) void: Vec<u32>,
}

/// Reads the files with these numbers. Changes nothing but a torn tail.
pub(crate) fn recover(store: &Store, found: &[u32]) -> Result<Recovered, WalError> {
    if let Some(pair) = found.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        let lsn = Lsn { file: pair[0] + 1, offset: 0 };
        return Err(damaged(store, lsn, "the file is missing".to_owned()));
    }
    let begin = Lsn { file: found.first().copied().unwrap_or(0), offset: 0 };
    let mut scan = Scan { store, replay: Replay::default(), begin, tail: None, attested: begin };
    let mut void = Vec::new();
    for &seq in found {
        let in_use = void.is_empty() && scan.file(seq)?;
        if !in_use {
            scan.attest_void(seq)?;
            void.push(seq);
        }
    }
    let rest = scan.attest_rest()?;
    let end = scan.end();
    if scan.attested > end {
        let what = format!("bytes up to {} were synced", scan.attested);
        return Err(damaged(store, end, what));
    }
    scan.replay.finish().map_err(|what| damaged(store, end, what))?;
    if let Some(tail) = scan.tail
        && rest == Rest::Remains
    {
        let zeroed = store.zero_tail(tail.salt.file, u64::from(tail.offset));
        zeroed.map_err(io_error("zero the torn tail of the write-ahead log"))?;
    }
    Ok(Recovered { replay: scan.replay, tail: scan.tail, void })
}

/// What follows the end of the log in its last file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing that could be mistaken for a part of the log.
    Clean,
    /// Remains of something.
    Remains,
}

struct Scan<'a> {
    store: &'a Store,
    replay: Replay,
    /// Where the oldest file begins.
    begin: Lsn,
    tail: Option<Tail>,
    /// The highest place that a valid header attests as synced.
    attested: Lsn,
}

impl Scan<'_> {
    /// Where what was read so far ends.
    fn end(&self) -> Lsn {
        self.tail.map_or(self.begin, |t| Lsn { file: t.salt.file, offset: t.offset })
    }

    fn window(&self, seq: u32) -> Result<Window, WalError> {
        let reader = self.store.reader(seq);
        let window = reader.and_then(|reader| Window::new(reader, SCAN_BYTES));
        window.map_err(io_error("read a write-ahead log file"))
    }

    /// Replays a file up to its first bad flush. False when it does not begin with a valid one.
    fn file(&mut self, seq: u32) -> Result<bool, WalError> {
        let mut window = self.window(seq)?;
        let mut offset = 0u32;
        let mut salt = None;
        loop {
            if u64::from(offset) >= MAX_FILE_BYTES {
                break;
            }
            let place = Place { salt, file: seq, offset };
            let (header, records) = match read_flush(&mut window, place)? {
                Ok(flush) => flush,
                Err(Bad::Version(version)) if offset == 0 => {
                    return Err(WalError::TooNew { file: self.store.path(seq), version });
                }
                Err(_) => break,
            };
            if offset == 0 {
                self.begins(&header)?;
            }
            let lsn = Lsn { file: seq, offset };
            self.attested = self.attested.max(header.synced);
            let applied = self.replay.flush(&header, records);
            applied.map_err(|what| damaged(self.store, lsn, what))?;
            salt = Some(header.salt);
            // No overflow: a flush begins below the largest file size and is far smaller.
            offset += header.padded_len() as u32;
            self.tail = Some(Tail { salt: header.salt, offset });
            self.replay.ends(seq, offset);
        }
        if let Some(salt) = salt {
            let reader = self.store.reader(seq);
            let reader = reader.map_err(io_error("open a write-ahead log file"))?;
            self.replay.attach(salt, reader);
        }
        Ok(salt.is_some())
    }

    /// A file begins where the one before ends, which was synced as a whole.
    fn begins(&mut self, header: &FlushHeader) -> Result<(), WalError> {
        let end = self.end();
        if self.tail.is_none() || header.synced == end {
            return Ok(());
        }
        let what = format!("the next file says that this one ends at {}", header.synced);
        Err(damaged(self.store, end.min(header.synced), what))
    }

    /// Looks for attestations in a file whose beginning is not valid.
    fn attest_void(&mut self, seq: u32) -> Result<(), WalError> {
        let mut window = self.window(seq)?;
        let first = window.bytes(0, HEADER_BYTES);
        let first = first.map_err(io_error("read a write-ahead log file"))?;
        // Prepared and never begun: what else it holds is from its last use.
        let prepared = FlushHeader::decode(first)
            .is_ok_and(|h| h.kind == FlushKind::Prepared && h.salt.file == seq);
        if !prepared {
            self.search(&mut window, Place { salt: None, file: seq, offset: 0 })?;
        }
        Ok(())
    }

    /// Looks for attestations behind the end of the log in its last file.
    fn attest_rest(&mut self) -> Result<Rest, WalError> {
        let Some(tail) = self.tail else { return Ok(Rest::Clean) };
        let place = Place { salt: Some(tail.salt), file: tail.salt.file, offset: tail.offset };
        let mut window = self.window(place.file)?;
        let seen = self.search(&mut window, place)?;
        // After an orderly stop, foreign bytes are what a recycled file held before.
        let torn = seen.headers > 0 || seen.nonzero && !self.replay.closed();
        Ok(if torn { Rest::Remains } else { Rest::Clean })
    }

    fn search(&mut self, window: &mut Window, from: Place) -> Result<Seen, WalError> {
        let mut seen = Seen::default();
        let mut place = from;
        // Flushes never begin above the largest file size.
        let end = window.file_len().min(MAX_FILE_BYTES);
        while u64::from(place.offset) < end {
            let block = window.bytes(u64::from(place.offset), BLOCK);
            let block = block.map_err(io_error("read a write-ahead log file"))?;
            seen.nonzero |= block.iter().any(|b| *b != 0);
            if let Ok(header) = FlushHeader::decode(block)
                && place.holds(&header)
            {
                seen.headers += 1;
                self.attested = self.attested.max(header.synced);
            }
            place.offset += BLOCK as u32;
        }
        Ok(seen)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    nonzero: bool,
    headers: usize,
}

/// Where a flush is expected; the salt of a file is known after its first flush.
#[derive(Clone, Copy, Debug)]
struct Place {
    salt: Option<Salt>,
    file: u32,
    offset: u32,
}

impl Place {
    /// Whether a header belongs here.
    fn holds(&self, header: &FlushHeader) -> bool {
        header.kind != FlushKind::Prepared
            && header.offset == self.offset
            && header.salt.file == self.file
            && self.salt.is_none_or(|salt| salt == header.salt)
    }
}

type Flush = (FlushHeader, Vec<(usize, Record)>);

fn read_flush(window: &mut Window, place: Place) -> Result<Result<Flush, Bad>, WalError> {
    let failed = "read a write-ahead log file";
    let offset = u64::from(place.offset);
    let head = window.bytes(offset, HEADER_BYTES).map_err(io_error(failed))?;
    let header = match FlushHeader::decode(head) {
        Ok(header) => header,
        Err(bad) => return Ok(Err(bad)),
    };
    let first = header.kind == FlushKind::State;
    if !place.holds(&header) || first != (place.offset == 0) {
        return Ok(Err(Bad::Foreign));
    }
    let bytes = window.bytes(offset, header.length as usize).map_err(io_error(failed))?;
    Ok(decode_flush(bytes))
}

fn damaged(store: &Store, lsn: Lsn, what: String) -> WalError {
    WalError::Damaged { file: store.path(lsn.file), lsn, what }
}
