//! Names of files: what people see, and what the block store takes.
//!
//! A server's names are raw bytes. Shown is UTF-8 in NFC; a name that is not UTF-8 is decoded by
//! the hint (CP949 for Korean sites), and bytes that fit nothing are percent-escaped. In the
//! block store, `:` and control characters are percent-escaped too. Different raw names may thus
//! meet in one shown name (NFC and NFD, UTF-8 and CP949): those are twins, and every one but the
//! first has `~n` before its suffix in the block store.

use encoding_rs::EUC_KR;
use sha2::{Digest, Sha256};
use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::limits::MAX_COMPONENT_BYTES;

/// The shown form of a path of raw bytes, component by component.
pub fn display_path(raw: &[u8]) -> String {
    let shown: Vec<String> = raw.split(|b| *b == b'/').map(display_name).collect();
    shown.join("/")
}

/// The shown form of one component.
pub fn display_name(raw: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(raw) {
        return nfc(text);
    }
    if let Some(text) = EUC_KR.decode_without_bom_handling_and_without_replacement(raw) {
        return nfc(&text);
    }
    let mut out = String::new();
    for chunk in raw.utf8_chunks() {
        out.push_str(chunk.valid());
        for byte in chunk.invalid() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    nfc(&out)
}

fn nfc(text: &str) -> String {
    if is_nfc(text) { text.to_owned() } else { text.nfc().collect() }
}

/// The path below the store's directory for a shown path, without `~n`.
pub fn store_path(display: &str) -> String {
    let parts: Vec<String> = display.split('/').map(store_name).collect();
    parts.join("/")
}

fn store_name(display: &str) -> String {
    let mut out = String::with_capacity(display.len());
    for c in display.chars() {
        if c == ':' || c.is_control() {
            let mut buf = [0; 4];
            for byte in c.encode_utf8(&mut buf).bytes() {
                out.push_str(&format!("%{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
    shorten(out)
}

/// A name over the block store's limit keeps its beginning and its suffix; a hash of the whole
/// name between them keeps it unique.
fn shorten(name: String) -> String {
    // Room for `~nn`, which twins get.
    let limit = MAX_COMPONENT_BYTES - 4;
    if name.len() <= limit {
        return name;
    }
    let hash = Sha256::digest(name.as_bytes());
    let tag: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
    let (_, suffix) = split_suffix(&name);
    let suffix = if suffix.len() <= 16 { suffix } else { "" };
    let mut keep = limit - suffix.len() - tag.len() - 1;
    while !name.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}~{tag}{suffix}", name.get(..keep).unwrap_or_default())
}

/// Splits `name.txt` into `name` and `.txt`; a name without suffix keeps everything in front.
fn split_suffix(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, ""),
    }
}

/// The path of twin `number` (from 1): `a/b.txt`, `a/b~2.txt`, `a/b~3.txt`.
pub fn twin_path(path: &str, number: u8) -> String {
    if number <= 1 {
        return path.to_owned();
    }
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(d, n)| (d, n));
    let (stem, suffix) = split_suffix(name);
    let slash = if path.contains('/') { "/" } else { "" };
    format!("{dir}{slash}{stem}~{number}{suffix}")
}

/// Raw forms that another system may have given to the same shown path: NFC, NFD, CP949.
pub fn raw_variants(display: &str) -> Vec<Vec<u8>> {
    if display.is_ascii() {
        return Vec::new();
    }
    let mut variants = vec![display.as_bytes().to_vec()];
    variants.push(display.nfd().collect::<String>().into_bytes());
    let (cp949, _, unmappable) = EUC_KR.encode(display);
    if !unmappable {
        variants.push(cp949.into_owned());
    }
    variants
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cp949(text: &str) -> Vec<u8> {
        EUC_KR.encode(text).0.into_owned()
    }

    #[test]
    fn names_are_shown_composed() {
        let nfd: String = "회의 일정.txt".nfd().collect();
        assert_ne!(nfd, "회의 일정.txt");
        assert_eq!(display_name(nfd.as_bytes()), "회의 일정.txt");
        assert_eq!(display_name(&cp949("똠방각하.txt")), "똠방각하.txt");
        assert_eq!(display_name(b"a\xff\xfe.txt"), "a%FF%FE.txt");
        let mixed = [&cp949("옛문서")[..], b"/", "새 글.txt".as_bytes()].concat();
        assert_eq!(display_path(&mixed), "옛문서/새 글.txt");
    }

    #[test]
    fn the_block_store_gets_names_it_takes() {
        assert_eq!(store_path("a/12:30 \t회의?.txt"), "a/12%3A30 %09회의?.txt");
        let long = format!("{}.txt", "긴이름".repeat(40));
        let short = store_path(&long);
        assert!(short.len() <= MAX_COMPONENT_BYTES - 4 && short.ends_with(".txt"), "{short}");
        let other = store_path(&format!("{}x.txt", "긴이름".repeat(40)));
        assert_ne!(short, other);
    }

    #[test]
    fn twins_have_a_number_before_the_suffix() {
        assert_eq!(twin_path("a/b.txt", 1), "a/b.txt");
        assert_eq!(twin_path("a.d/b.tar.txt", 2), "a.d/b.tar~2.txt");
        assert_eq!(twin_path("b", 3), "b~3");
        assert_eq!(twin_path("a.d/b", 3), "a.d/b~3");
    }

    #[test]
    fn variants_cover_the_usual_systems() {
        let variants = raw_variants("회의.txt");
        assert_eq!(variants.len(), 3);
        assert!(variants.contains(&cp949("회의.txt")));
        assert!(raw_variants("plain.txt").is_empty());
    }
}
