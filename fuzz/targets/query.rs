//! Queries and mappings as JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let _ = search::query::Query::parse(&value);
    if let Ok(mapping) = search::mapping::Mapping::parse(&value) {
        let again = search::mapping::Mapping::parse(&mapping.to_json());
        assert!(again.is_ok(), "own rendering parses");
        let settings = serde_json::Value::Object(serde_json::Map::new());
        if let Ok(schema) = search::mapping::IndexSchema::new(mapping, &settings) {
            let _ = schema.parse_document("1", data);
        }
    }
});
