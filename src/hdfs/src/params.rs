//! Requests taken apart: pure code over untrusted text.

use axum::http::Method;
use percent_encoding::percent_decode;

use crate::error::Refusal;
use crate::limits::MAX_PARAMS;
use crate::ops::Op;

/// What stands before every path.
pub const PREFIX: &str = "/webhdfs/v1";

/// The user of a request without `user.name`, as Hadoop's `hadoop.http.staticuser.user`.
const DEFAULT_USER: &str = "dr.who";

/// A parsed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What to do.
    pub op: Op,
    /// Decoded path, `/` when there was none.
    pub path: String,
    params: Vec<(String, String)>,
}

impl Call {
    /// Takes a request apart. `path` and `query` are as they stood in the request line.
    pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Self, Refusal> {
        let path = decode_path(path)?;
        let params = decode_query(query.unwrap_or_default())?;
        let name = params.iter().find(|(name, _)| name == "op").map(|(_, value)| value.as_str());
        let op = Op::parse(method, name)?;
        Ok(Self { op, path, params })
    }

    /// A parameter, unless it is missing or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that must be there.
    pub fn required(&self, name: &str) -> Result<&str, Refusal> {
        let missing = || Refusal::illegal(format!("Required param {name} for op: {:?}", self.op));
        self.get(name).ok_or_else(missing)
    }

    /// A boolean parameter, in any case.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, Refusal> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("null") => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => {
                let why = format!("Failed to parse \"{other}\" to Boolean.");
                Err(bad_value(name, &why))
            }
        }
    }

    /// A whole number, where given.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.get(name).filter(|text| *text != "null") else { return Ok(None) };
        let why = || format!("Failed to parse \"{text}\" as a radix-10 long integer.");
        text.parse().map(Some).map_err(|_| bad_value(name, &why()))
    }

    /// A whole number of at least 0, where given.
    pub fn unsigned(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(number) = self.number(name)? else { return Ok(None) };
        let why = || format!("Invalid parameter range: {name} = {number} < 0");
        u64::try_from(number).map(Some).map_err(|_| bad_value(name, &why()))
    }

    /// Permission bits in octal, where given.
    pub fn permission(&self) -> Result<Option<u16>, Refusal> {
        let Some(text) = self.get("permission").filter(|text| *text != "null") else {
            return Ok(None);
        };
        let mode = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o1777);
        let why = || {
            format!("Invalid value: \"{text}\" does not belong to the domain ^[0-1]?[0-7]{{3}}$")
        };
        mode.map(Some).ok_or_else(|| bad_value("permission", &why()))
    }

    /// Who asks: `user.name`, or `doas` for a user that `may_impersonate`.
    pub fn user(&self, may_impersonate: impl Fn(&str) -> bool) -> Result<String, Refusal> {
        let user = self.get("user.name").unwrap_or(DEFAULT_USER);
        check_user("user.name", user)?;
        let Some(other) = self.get("doas").filter(|other| *other != user) else {
            return Ok(user.to_owned());
        };
        check_user("doas", other)?;
        if may_impersonate(user) {
            return Ok(other.to_owned());
        }
        Err(Refusal {
            status: axum::http::StatusCode::FORBIDDEN,
            class: "java.lang.SecurityException",
            message: format!(
                "Failed to obtain user group information: \
                 org.apache.hadoop.security.authorize.AuthorizationException: User: {user} is not \
                 allowed to impersonate {other}"
            ),
        })
    }
}

fn bad_value(name: &str, why: &str) -> Refusal {
    Refusal::illegal(format!("Invalid value for webhdfs parameter \"{name}\": {why}"))
}

fn check_user(param: &str, name: &str) -> Result<(), Refusal> {
    let body = name.strip_suffix('$').unwrap_or(name);
    let starts = body.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if starts && body.chars().all(inner) && name.len() <= 255 {
        return Ok(());
    }
    let why = format!(
        "Invalid value: \"{name}\" does not belong to the domain ^[A-Za-z_][A-Za-z0-9._-]*[$]?$"
    );
    Err(bad_value(param, &why))
}

/// The path after the prefix, percent-decoded once; a plus stays a plus.
fn decode_path(path: &str) -> Result<String, Refusal> {
    let path = path.strip_prefix(PREFIX).unwrap_or(path);
    let decoded = percent_decode(path.as_bytes()).decode_utf8();
    let decoded = decoded.map_err(|_| Refusal::illegal("the path is not UTF-8"))?;
    Ok(if decoded.is_empty() { "/".to_owned() } else { decoded.into_owned() })
}

/// Parameters with names in lower case, form-decoded.
fn decode_query(query: &str) -> Result<Vec<(String, String)>, Refusal> {
    let mut params = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if params.len() >= MAX_PARAMS {
            return Err(Refusal::illegal(format!("more than {MAX_PARAMS} parameters")));
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        params.push((decode_form(name)?.to_ascii_lowercase(), decode_form(value)?));
    }
    Ok(params)
}

fn decode_form(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes()).decode_utf8();
    Ok(decoded.map_err(|_| Refusal::illegal("a parameter is not UTF-8"))?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(query: &str) -> Result<Call, Refusal> {
        Call::parse(&Method::GET, "/webhdfs/v1/a+b%20%ED%9A%8C", Some(query))
    }

    #[test]
    fn names_and_operations_are_found_in_any_case() {
        let call = call("OP=listSTATUS&User.Name=bob&x=%2B+%25").unwrap();
        assert_eq!((call.op, &*call.path), (Op::ListStatus, "/a+b 회"));
        assert_eq!(call.get("x"), Some("+ %"));
        assert_eq!(call.user(|_| false).unwrap(), "bob");
    }

    #[test]
    fn bad_values_are_named() {
        let message = |query: &str| call(query).unwrap_err().message;
        assert_eq!(message("x=1"), "op=NULL is not supported");
        assert!(message("op=FOO").ends_with("GetOpParam.Op.FOO"));
        assert!(message("op=CREATE").ends_with("GetOpParam.Op.CREATE"));
        assert_eq!(message("op=GETXATTRS"), "op=GETXATTRS is not supported");
        assert!(message("op=%ff").contains("UTF-8"));
        let call = call("op=OPEN&offset=x&length=-1&recursive=maybe&permission=9").unwrap();
        assert!(call.unsigned("offset").is_err() && call.unsigned("length").is_err());
        assert!(call.boolean("recursive", false).is_err() && call.permission().is_err());
        assert!(Call::parse(&Method::GET, "/webhdfs/v1/%ff", Some("op=OPEN")).is_err());
    }

    #[test]
    fn impersonation_needs_the_right() {
        let call = call("op=OPEN&user.name=hue&doas=bob").unwrap();
        assert_eq!(call.user(|who| who == "hue").unwrap(), "bob");
        assert_eq!(call.user(|_| false).unwrap_err().class, "java.lang.SecurityException");
        let spaced = Call::parse(&Method::GET, "", Some("op=OPEN&user.name=a%20b"));
        assert!(spaced.unwrap().user(|_| false).is_err());
    }
}
