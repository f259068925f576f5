//! File name patterns over raw bytes: `*` (not `/`), `**` (also `/`), `?`, and nothing else.
//! Names may be CP949, so a pattern never assumes UTF-8; `?` is one byte of such a name and one
//! character of a UTF-8 one.

/// Length of a pattern; longer ones are refused.
const MAX_PATTERN_BYTES: usize = 1024;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Vec<u8>,
    /// Whether the path is matched instead of the last component.
    whole_path: bool,
}

impl Glob {
    /// Parses a pattern.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
            return Err(format!("a pattern has 1 to {MAX_PATTERN_BYTES} bytes"));
        }
        let whole_path = pattern.contains('/');
        let pattern = pattern.trim_start_matches('/').as_bytes().to_vec();
        Ok(Self { pattern, whole_path })
    }

    /// Whether a path below the source's directory matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        matches(&self.pattern, if self.whole_path { path } else { name })
    }
}

/// Greedy matching with one point to return to: linear in practice, at worst pattern × text.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when a star must take one more byte, and whether it may take slashes.
    let mut star: Option<(usize, usize, bool)> = None;
    let mut deep: Option<(usize, usize, bool)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) if pattern.get(p + 1) == Some(&b'*') => {
                p += 2;
                deep = Some((p, t, true));
                star = None;
                continue;
            }
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, t, false));
                continue;
            }
            (Some(b'?'), Some(c)) if *c != b'/' => {
                p += 1;
                t += char_len(text.get(t..).unwrap_or_default());
                continue;
            }
            (Some(a), Some(b)) if a == b => {
                p += 1;
                t += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let retry = [&mut star, &mut deep].into_iter().find_map(|point| {
            let (after, taken, slashes) = (*point)?;
            let next = text.get(taken)?;
            if *next == b'/' && !slashes {
                return None;
            }
            *point = Some((after, taken + 1, slashes));
            Some((after, taken + 1, slashes))
        });
        let Some((after, taken, slashes)) = retry else { return false };
        if slashes {
            star = None;
        }
        (p, t) = (after, taken);
    }
}

/// Bytes of the UTF-8 character at the front, 1 when it is none.
fn char_len(text: &[u8]) -> usize {
    let len = match text.first() {
        Some(0xc2..=0xdf) => 2,
        Some(0xe0..=0xef) => 3,
        Some(0xf0..=0xf4) => 4,
        _ => 1,
    };
    let whole = text.get(..len).is_some_and(|c| std::str::from_utf8(c).is_ok());
    if whole { len } else { 1 }
}

/// What is taken and what is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    include: Vec<Glob>,
    exclude: Vec<Glob>,
}

impl Filter {
    /// A filter of patterns.
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        let parse = |list: &[String]| -> Result<Vec<Glob>, String> {
            list.iter().map(|p| Glob::parse(p)).collect()
        };
        Ok(Self { include: parse(include)?, exclude: parse(exclude)? })
    }

    /// Whether a file is taken.
    pub fn takes_file(&self, path: &[u8]) -> bool {
        self.include.iter().any(|g| g.matches(path)) && self.enters(path)
    }

    /// Whether a directory is entered.
    pub fn enters(&self, path: &[u8]) -> bool {
        !self.exclude.iter().any(|g| g.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_or_paths() {
        for (pattern, path, want) in [
            ("*.txt", "a/b/c.txt", true),
            ("*.txt", "a.txt.part", false),
            ("*.txt", ".txt", true),
            (".*", "a/.hidden", true),
            (".*", ".dir/a.txt", false),
            ("*~", "x~", true),
            ("?.txt", "한.txt", true),
            ("?.txt", "ab.txt", false),
            ("news/*.txt", "news/a.txt", true),
            ("news/*.txt", "news/b/a.txt", false),
            ("news/**", "news/b/a.txt", true),
            ("**/b/*.txt", "x/y/b/a.txt", true),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
        ] {
            assert_eq!(
                Glob::parse(pattern).unwrap().matches(path.as_bytes()),
                want,
                "{pattern} {path}"
            );
        }
        assert!(Glob::parse("*.txt").unwrap().matches(b"\xc8\xb8\xc0\xc7.txt"));
        assert!(Glob::parse("").is_err());
    }
}
