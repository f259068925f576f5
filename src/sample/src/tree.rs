//! The sample tree: a few hundred text files with every difficulty that real sites show.
//!
//! Deterministic by seed, modification times included, and idempotent: a file that already has
//! its bytes and time is left alone, so that a tree that was written in part can be completed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use encoding_rs::EUC_KR;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::text::{self, Dice, Lang};

/// 2025-01-02 00:00:00 UTC: the oldest modification time.
const FIRST_MTIME: u64 = 1_735_776_000;

/// Bytes of the big file, at least.
const BIG_BYTES: usize = 3 * 1024 * 1024;

/// Most files of a tree that is read.
const MAX_FILES: usize = 1_000_000;

/// Ends of names that a collector with default rules leaves alone.
const LEFT_ALONE: [&[u8]; 5] = [b"~", b".tmp", b".part", b".filepart", b".swp"];

/// A text file of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleFile {
    /// Path below the root, as raw bytes with `/`; not always UTF-8.
    pub path: Vec<u8>,
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// Length of the content in bytes.
    pub len: u64,
    /// Modification time, seconds since 1970.
    pub mtime: u64,
}

impl SampleFile {
    /// The path as people read it: composed, and decoded where a name is CP949. `None` where a
    /// name is neither that nor UTF-8.
    pub fn shown(&self) -> Option<String> {
        let names: Option<Vec<String>> = self.path.split(|b| *b == b'/').map(shown_name).collect();
        Some(names?.join("/"))
    }
}

fn shown_name(raw: &[u8]) -> Option<String> {
    if let Ok(text) = std::str::from_utf8(raw) {
        return Some(text.nfc().collect());
    }
    let text = EUC_KR.decode_without_bom_handling_and_without_replacement(raw)?;
    Some(text.nfc().collect())
}

/// Writes the tree below `root` and returns its `.txt` files, which are what a collector with
/// default rules picks up. A few files it must leave alone are written beside them.
pub fn write_tree(root: &Path, seed: u64) -> io::Result<Vec<SampleFile>> {
    let mut plan = Plan { dice: Dice::new(seed), files: Vec::new() };
    plan.articles();
    plan.cp949();
    plan.names();
    plan.contents();
    let mut written = Vec::with_capacity(plan.files.len());
    for (number, (path, content)) in plan.files.into_iter().enumerate() {
        // Spread over a year and a half, so that a histogram by date shows something.
        let step = (plan.dice.below(150_000) + number * 150_000) as u64;
        written.push(write_file(root, path, &content, FIRST_MTIME + step)?);
    }
    for (path, content) in [
        (&b"README.md"[..], "not a text file by its suffix\n"),
        (b"news/.hidden.txt", "hidden\n"),
        (b"news/upload.txt.part", "half an upload"),
        (b"news/draft.txt~", "an editor's backup\n"),
    ] {
        write_file(root, path.to_vec(), content.as_bytes(), FIRST_MTIME)?;
    }
    Ok(written)
}

/// The files below `root` that a collector with default rules picks up, as they are now, by path.
pub fn read_tree(root: &Path) -> io::Result<Vec<SampleFile>> {
    let mut files = Vec::new();
    let mut open: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(root.join(OsStr::from_bytes(&dir)))? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_bytes();
            if name.starts_with(b".") || LEFT_ALONE.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let slash = if dir.is_empty() { &b""[..] } else { b"/" };
            let path = [&dir, slash, name].concat();
            // Not followed: a symbolic link is neither.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() && name.ends_with(b".txt") {
                files.push(read_file(root, path)?);
            }
            if files.len() + open.len() > MAX_FILES {
                return Err(io::Error::other(format!("more than {MAX_FILES} files")));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_file(root: &Path, path: Vec<u8>) -> io::Result<SampleFile> {
    let full = root.join(OsStr::from_bytes(&path));
    let modified = fs::metadata(&full)?.modified()?;
    let bytes = fs::read(&full)?;
    // Before 1970 is as good as 1970 here.
    let mtime = modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(SampleFile { path, sha256: Sha256::digest(&bytes).into(), len: bytes.len() as u64, mtime })
}

fn write_file(root: &Path, path: Vec<u8>, bytes: &[u8], mtime: u64) -> io::Result<SampleFile> {
    let full = root.join(OsStr::from_bytes(&path));
    let time = UNIX_EPOCH + Duration::from_secs(mtime);
    let file =
        SampleFile { path, sha256: Sha256::digest(bytes).into(), len: bytes.len() as u64, mtime };
    let there = fs::metadata(&full).ok();
    if there.is_some_and(|m| m.len() == file.len && m.modified().is_ok_and(|t| t == time)) {
        return Ok(file);
    }
    let dir = full.parent().unwrap_or(root);
    fs::create_dir_all(dir)?;
    // Written under an ignored name, then renamed: a running collector never sees half of it.
    let temporary = dir.join(".writing.tmp");
    let mut out = File::create(&temporary)?;
    out.write_all(bytes)?;
    out.set_modified(time)?;
    drop(out);
    fs::rename(&temporary, &full)?;
    Ok(file)
}

struct Plan {
    dice: Dice,
    files: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Plan {
    fn add(&mut self, path: impl Into<Vec<u8>>, content: impl Into<Vec<u8>>) {
        self.files.push((path.into(), content.into()));
    }

    fn article(&mut self, lang: Lang) -> String {
        let paragraphs = 1 + self.dice.below(6);
        text::article(&mut self.dice, lang, paragraphs)
    }

    /// Plain articles in UTF-8, most of the tree.
    fn articles(&mut self) {
        for n in 0..84 {
            let content = self.article(Lang::Ko);
            self.add(format!("news/ko/2025/{:02}/기사-{n:03}.txt", n % 12 + 1), content);
        }
        for n in 0..60 {
            let content = self.article(Lang::En);
            self.add(format!("news/en/2025/{:02}/article-{n:03}.txt", n % 12 + 1), content);
        }
        let cities = ["서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종"];
        for n in 0..24 {
            let content = self.article(Lang::Ko);
            let city = cities[n % cities.len()];
            self.add(format!("뉴스/지역 소식/{city}/소식 {}.txt", n / cities.len() + 1), content);
        }
    }

    /// CP949 contents, and CP949 names of files and directories.
    fn cp949(&mut self) {
        for n in 0..24 {
            let content = self.article(Lang::Ko);
            self.add(format!("archive/cp949/doc{n:02}.txt"), cp949(&content));
        }
        for n in 0..12 {
            let content = self.article(Lang::Ko);
            let name = cp949(&format!("옛문서/회의록 {:02}.txt", n + 1));
            self.add(name, cp949(&content));
        }
        // Syllables that only CP949 has, not EUC-KR proper, and a UTF-8 content under such a name.
        let text =
            "제목: 똠방각하\n\n햏햏, 펲시콜라를 마시며 회의를 했습니다. 뷁 하고 소리쳤습니다.\n";
        self.add(cp949("옛문서/똠방각하와 펲시콜라.txt"), cp949(text));
        let content = self.article(Lang::Ko);
        self.add(cp949("옛문서/새 인코딩.txt"), content);
        // Very short texts are the hard case for detection.
        self.add("archive/cp949/short.txt", cp949("회의\n"));
    }

    /// Names that need care somewhere.
    fn names(&mut self) {
        for name in [
            "special/two words.txt",
            "special/  leading and trailing  .txt",
            "special/it's a \"quoted\" name.txt",
            "special/percent %41 100%.txt",
            "special/question? and #hash & plus+.txt",
            "special/colon: 12:30.txt",
            "special/back\\slash.txt",
            "special/semi;colon,comma=equals.txt",
            "special/[brackets] {braces} (parens).txt",
            "special/star*.txt",
            "special/emoji 📈 chart.txt",
            "special/Ünïcödé ñame.txt",
            "special/日本語の名前.txt",
            "special/~tilde.txt",
            "special/-dash.txt",
            "special/UPPER.txt",
            "special/upper.txt",
            "special/dots...in.name.txt",
            "special/very/deep/tree/of/many/directories/deep.txt",
        ] {
            let content = self.article(Lang::En);
            self.add(name, content);
        }
        let long = "긴이름".repeat(25);
        let content = self.article(Lang::Ko);
        self.add(format!("special/{long}.txt"), content);
        // The same text name twice, composed and decomposed: two files to the server.
        for name in ["한글 자모.txt", "회의 일정.txt", "시장 보고.txt"] {
            let (nfc, nfd): (String, String) = (name.nfc().collect(), name.nfd().collect());
            let content = self.article(Lang::Ko);
            self.add(format!("mac/{nfc}"), format!("완성형 이름\n\n{content}"));
            let content = self.article(Lang::Ko);
            self.add(format!("mac/{nfd}"), format!("조합형 이름\n\n{content}"));
        }
        for n in 1..=4 {
            let content = self.article(Lang::Ko);
            let path: String = format!("mac/맥에서 올린 파일 {n}.txt").nfd().collect();
            self.add(path, content);
        }
    }

    /// Contents that need care somewhere.
    fn contents(&mut self) {
        self.add("edge/empty.txt", "");
        self.add("edge/one-byte.txt", "x");
        self.add("edge/only-newlines.txt", "\n\n\n");
        self.add(
            "edge/no-newline-at-end.txt",
            "첫 줄이 제목입니다\n마지막 줄에는 줄바꿈이 없습니다",
        );
        self.add("edge/crlf.txt", "윈도 줄바꿈\r\n\r\n회의는 두 시에 시작합니다.\r\n끝.\r\n");
        self.add(
            "edge/quotes.txt",
            "He said \"stop\"\n\n\"a\" 'b' `c` \\ \\n \\u0041 \"\"\" {\"json\": [1]}\n",
        );
        self.add(
            "edge/control.txt",
            "control\n\nbell\u{7} tab\t vertical\u{b} escape\u{1b}[31m unit\u{1f} delete\u{7f}\n",
        );
        self.add("edge/nul.txt", "null inside\n\nbefore\u{0}after\n");
        self.add(
            "edge/subject-line.txt",
            "날짜: 2025-03-01\n제목: 봄맞이 회의 안내\n\n회의는 {강당}에서 열립니다.\n",
        );
        self.add(
            "edge/subject-en.txt",
            "From: desk\nSubject: Budget \"review\"\n\nThe budget meeting moved to Friday.\n",
        );
        self.add("edge/json.txt", "{\"id\": \"not mine\", \"body\": \"inner\\nvalue\"}\n");
        self.add("edge/csv.txt", "도시,기온\n서울,21\n\"부산, 해운대\",23\n");
        self.add("edge/emoji.txt", "그림 문자 👩‍👩‍👧 🇰🇷\n\n회의에서 박수 👏 를 쳤습니다. 𝒳 한글\n");
        self.add("edge/long-line.txt", format!("긴 줄\n\n{}\n", "회의 시장 날씨 ".repeat(3000)));
        let content = self.article(Lang::Ko);
        self.add("edge/utf8-bom.txt", [b"\xef\xbb\xbf", content.as_bytes()].concat());
        let content = self.article(Lang::Ko);
        let utf16: Vec<u8> = content.encode_utf16().flat_map(u16::to_le_bytes).collect();
        self.add("edge/utf16le-bom.txt", [b"\xff\xfe", &utf16[..]].concat());
        let content = self.article(Lang::En);
        let utf16: Vec<u8> = content.encode_utf16().flat_map(u16::to_be_bytes).collect();
        self.add("edge/utf16be-bom.txt", [b"\xfe\xff", &utf16[..]].concat());
        let mut big = String::from("연간 보고서 2025\n");
        while big.len() < BIG_BYTES {
            big.push_str(&text::article(&mut self.dice, Lang::Ko, 4));
            big.push_str(&text::article(&mut self.dice, Lang::En, 2));
        }
        big.push_str("\n마지막 문장: 거대한 보고서의 끝에서만 나오는 낱말은 자두빛입니다.\n");
        self.add("large/연간 보고서 2025.txt", big);
    }
}

/// Bytes of a text in CP949, which encoding standards call EUC-KR.
fn cp949(text: &str) -> Vec<u8> {
    let (bytes, _, unmappable) = EUC_KR.encode(text);
    assert!(!unmappable, "sample text has no CP949 form: {text}");
    bytes.into_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_tree_has_what_the_demo_promises() {
        let dir = tempfile::tempdir().unwrap();
        let files = write_tree(dir.path(), 42).unwrap();
        assert!(files.len() >= 200, "{}", files.len());
        let paths: BTreeSet<&[u8]> = files.iter().map(|f| &f.path[..]).collect();
        assert_eq!(paths.len(), files.len(), "no path twice");
        assert!(files.iter().all(|f| f.path.ends_with(b".txt")));
        assert!(files.iter().any(|f| f.len == 0));
        assert!(files.iter().any(|f| f.len > 2 * 1024 * 1024));
        assert!(files.iter().any(|f| std::str::from_utf8(&f.path).is_err()));
        for file in &files {
            let bytes = fs::read(dir.path().join(OsStr::from_bytes(&file.path))).unwrap();
            assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), file.sha256);
            assert!(file.path.split(|b| *b == b'/').all(|part| part.len() <= 255));
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut written = write_tree(dir.path(), 42).unwrap();
        written.sort_by(|a, b| a.path.cmp(&b.path));
        for name in ["a.txt~", "edge/.b.txt", "c.TXT", "d.part/e.txt"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "left alone").unwrap();
        }
        std::os::unix::fs::symlink("edge/csv.txt", dir.path().join("link.txt")).unwrap();
        assert_eq!(read_tree(dir.path()).unwrap(), written);
    }

    #[test]
    fn paths_are_shown_composed_and_decoded() {
        let shown = |path: Vec<u8>| SampleFile { path, sha256: [0; 32], len: 0, mtime: 0 }.shown();
        let name = "옛문서/회의록.txt".to_owned();
        let decomposed: String = name.nfd().collect();
        assert_ne!(decomposed, name);
        assert_eq!(shown(decomposed.into()), Some(name.clone()));
        let mixed = [&cp949("옛문서"), "/회의록.txt".as_bytes()].concat();
        assert_eq!(shown(mixed), Some(name));
        assert_eq!(shown(b"a/b\xff.txt".to_vec()), None);
    }

    #[test]
    fn a_second_write_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let first = write_tree(dir.path(), 7).unwrap();
        let probe = dir.path().join("edge/one-byte.txt");
        let before = fs::metadata(&probe).unwrap();
        let second = write_tree(dir.path(), 7).unwrap();
        assert_eq!(first, second);
        use std::os::unix::fs::MetadataExt;
        let after = fs::metadata(&probe).unwrap();
        assert_eq!((before.ino(), before.mtime()), (after.ino(), after.mtime()));
    }
}
