//! Detection and decoding of the encodings of collected files.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    drop(collect::encoding::decode(data, None, "news/a.txt"));
    let _ = collect::ident::Version::decode(data);
});
