//! Mappings as text, which is how the catalog keeps them, and as the search crate uses them.

use search::mapping::{IndexSchema, Mapping};
use serde_json::Value;

use crate::error::EsError;
use crate::settings::Settings;

/// Most fields of an index, as Elasticsearch's default of `index.mapping.total_fields.limit`.
const DEFAULT_FIELD_LIMIT: usize = 1000;

fn parse(text: &str) -> Result<Mapping, EsError> {
    let value: Value = serde_json::from_str(text).map_err(|e| EsError::parsing(e.to_string()))?;
    Ok(Mapping::parse(&value)?)
}

fn compile_mapping(mapping: Mapping, settings: &Settings) -> Result<IndexSchema, EsError> {
    let flat = Value::Object(settings.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    Ok(IndexSchema::new(mapping, &flat)?)
}

/// A mapping ready for use.
pub(crate) fn compile(text: &str, settings: &Settings) -> Result<IndexSchema, EsError> {
    compile_mapping(parse(text)?, settings)
}

/// Checks a mapping of a user and writes it in the one form that is kept.
pub(crate) fn normalize(mapping: &Value, settings: &Settings) -> Result<String, EsError> {
    let mapping = Mapping::parse(mapping)?;
    check_size(&mapping, settings)?;
    let text = mapping.to_json().to_string();
    compile_mapping(mapping, settings)?;
    Ok(text)
}

/// `text` with `addition` merged in.
pub(crate) fn merge(text: &str, addition: &str, settings: &Settings) -> Result<String, EsError> {
    let merged = parse(text)?.merge(&parse(addition)?)?;
    check_size(&merged, settings)?;
    let text = merged.to_json().to_string();
    compile_mapping(merged, settings)?;
    Ok(text)
}

fn check_size(mapping: &Mapping, settings: &Settings) -> Result<(), EsError> {
    let limit = settings.get("index.mapping.total_fields.limit").and_then(Value::as_str);
    let limit = limit.and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_FIELD_LIMIT);
    if mapping.field_count() > limit {
        let reason = format!("Limit of total fields [{limit}] has been exceeded");
        return Err(EsError::illegal(reason));
    }
    Ok(())
}
