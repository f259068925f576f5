//! The request line of WebHDFS: method, path and query, then everything that is read out of them.
#![no_main]

use hdfs::decoders::read_request;
use hdfs::limits::{MAX_HEAD_BYTES, MAX_PARAMS};
use hdfs::params::PREFIX;
use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // `METHOD path?query` below the prefix; the HTTP library has cut the line before us.
    let Some(space) = data.iter().position(|b| *b == b' ') else { return };
    let Ok(method) = Method::from_bytes(&data[..space]) else { return };
    let target = [PREFIX.as_bytes(), b"/", &data[space + 1..]].concat();
    let Ok(uri) = Uri::try_from(target) else { return };
    let pairs = uri.query().unwrap_or_default().split('&').count();
    let Ok(location) = read_request(&method, &uri) else { return };
    // Step two has two parameters more, and a request may have only so many bytes of head.
    if pairs + 2 > MAX_PARAMS || data.len() > MAX_HEAD_BYTES {
        return;
    }
    let second = Uri::try_from(location.as_str()).expect("a redirect leads to a URL");
    read_request(&method, &second).expect("step two reads as step one did");
});
