//! The bytes of what the ledger keeps of files; see [`base::golden`].

use base::golden::Golden;

use crate::ident::{FileKey, Stat, Version};

#[test]
fn golden() {
    let mut golden = Golden::open(concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden.txt"));
    let stat = Stat { size: 0x0102_0304_0506_0708, mtime_s: 0x1112_1314 };
    let version = Version { stat, sha256: [0x21; 32], twin: 3 };
    golden.bytes("Version", &version.encode(), |bytes| {
        Version::decode(bytes).map(|version| version.encode()).ok_or("of another format")
    });
    // A hash, so there is nothing to read back.
    let key = FileKey::new("수집", "/자료/파일.txt".as_bytes());
    golden.bytes("FileKey", &key.0, |bytes| Ok::<_, String>(bytes.to_vec()));
    golden.check();
}
