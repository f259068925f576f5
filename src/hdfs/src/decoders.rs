//! Everything that is read out of a request line, without a service behind it: what fuzzing calls.

use axum::http::{Method, Uri};

use crate::data::range;
use crate::error::Refusal;
use crate::handler::{access_of, create_options, location, rename_options};
use crate::ops::Op;
use crate::params::Call;

/// Reads a request as the port does; returns the URL to which it would be redirected.
pub fn read_request(method: &Method, uri: &Uri) -> Result<String, Refusal> {
    let call = Call::parse(method, uri.path(), uri.query())?;
    call.user(|user| user == "hdfs")?;
    match call.op {
        Op::Create => {
            create_options(&call)?;
        }
        Op::Open => {
            let len = 1000;
            let (start, length) = range(&call, len)?;
            assert!(start.checked_add(length).is_some_and(|end| end <= len), "inside the file");
        }
        Op::Rename => {
            rename_options(&call)?;
        }
        Op::Delete => {
            call.boolean("recursive", false)?;
        }
        Op::CheckAccess => {
            access_of(call.required("fsaction")?)?;
        }
        Op::SetTimes => {
            call.number("modificationtime")?;
        }
        _ => {
            call.permission()?;
            call.unsigned("replication")?;
        }
    }
    call.boolean("noredirect", false)?;
    Ok(location(uri, &call, "127.0.0.1:9864", "127.0.0.1:8020"))
}
