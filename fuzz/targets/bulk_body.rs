//! Bodies of `_bulk` and the query strings of the Elasticsearch port.
#![no_main]

use bytes::Bytes;
use elastic::bulk;
use elastic::params::Params;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    if let Ok(items) = bulk::parse(&body) {
        let sources: usize = items.iter().map(|item| item.source.len()).sum();
        assert!(sources <= body.len(), "sources are parts of the body");
        assert!(items.len() <= body.len() / 2, "an item takes a line");
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(params) = Params::parse(text)
    {
        let _ = params.refuse_unknown("/_bulk", &["refresh", "routing"]);
        let _ = (params.flag("refresh", false), params.number::<u64>("version"));
    }
});
