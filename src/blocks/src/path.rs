//! Paths of the namespace.

use std::borrow::Cow;

use crate::error::{FsError, FsErrorKind};
use crate::limits::{MAX_PATH_CHARS, MAX_PATH_DEPTH};

/// A valid absolute path: no empty component, no `.` or `..`, no `:` and no NUL, as Hadoop's
/// `DFSUtil.isValidName` demands. A slash at the end is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FsPath(String);

impl FsPath {
    /// Checks a path. Length of single components is checked where they are created.
    pub fn parse(text: &str) -> Result<Self, FsError> {
        let Some(below_root) = text.strip_prefix('/') else { return Err(invalid(text)) };
        let below_root = below_root.strip_suffix('/').unwrap_or(below_root);
        if text.chars().count() > MAX_PATH_CHARS {
            return Err(too_long());
        }
        if text == "//" {
            return Err(invalid(text));
        }
        if below_root.is_empty() {
            return Ok(Self("/".to_owned()));
        }
        let mut depth = 0;
        for name in below_root.split('/') {
            depth += 1;
            if !is_valid_component(name) {
                return Err(invalid(text));
            }
        }
        if depth > MAX_PATH_DEPTH {
            return Err(too_long());
        }
        Ok(Self(format!("/{below_root}")))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// Its components, none for the root.
    pub fn components(&self) -> Vec<&str> {
        self.0.split('/').filter(|name| !name.is_empty()).collect()
    }

    /// Whether `self` lies below `other` or is `other`.
    pub fn starts_with(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(&other.0);
        other.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Whether a single name may stand in the namespace, its length aside.
pub fn is_valid_component(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', ':', '\0'])
}

/// A name that may stand in the namespace: what Hadoop forbids is percent-encoded, everything
/// else is left as it is. For files of other systems whose names may hold a colon.
pub fn to_valid_component(name: &str) -> Cow<'_, str> {
    match name {
        "" => Cow::Borrowed("%00"),
        "." => Cow::Borrowed("%2E"),
        ".." => Cow::Borrowed("%2E%2E"),
        name if is_valid_component(name) => Cow::Borrowed(name),
        name => Cow::Owned(name.replace(':', "%3A").replace('/', "%2F").replace('\0', "%00")),
    }
}

fn invalid(text: &str) -> FsError {
    let shown: String = text.chars().take(MAX_PATH_CHARS).collect();
    FsError::new(FsErrorKind::InvalidPath, format!("Invalid path name Invalid file name: {shown}"))
}

fn too_long() -> FsError {
    FsError::io(format!(
        "Pathname too long.  Limit {MAX_PATH_CHARS} characters, {MAX_PATH_DEPTH} levels."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_hadoop() {
        for good in ["/", "/a", "/회의/a b%#+", "/a/"] {
            assert!(FsPath::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/a//b", "//", "/a/../b", "/.", "/a:b", "/a\0"] {
            assert!(FsPath::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(FsPath::parse("/a/b/").unwrap().components(), ["a", "b"]);
        assert_eq!(to_valid_component("a:b"), "a%3Ab");
    }

    #[test]
    fn below_means_whole_components() {
        let path = |text| FsPath::parse(text).unwrap();
        assert!(path("/a/b").starts_with(&path("/a")));
        assert!(!path("/ab").starts_with(&path("/a")));
        assert!(path("/a").starts_with(&path("/")));
    }
}
