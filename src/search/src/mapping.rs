//! Mappings: what fields an index has and how they are indexed.
//!
//! [`Mapping`] is the replicated model: it reads and writes Elasticsearch's JSON and merges.
//! [`IndexSchema`] is the compiled form for one index, with analyzers resolved; documents are
//! parsed and checked with it, see [`IndexSchema::parse_document`]. A document that brings new
//! fields yields a [`Mapping`] to merge first. Nothing here touches disk.

mod compiled;
mod document;
mod dynamic;
mod merge;
mod parse;
mod value;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(crate) use compiled::wildcard_match;
pub use compiled::{FieldDef, IndexSchema, ValueClass};
pub use document::{Entry, FieldValue, ParsedDocument};
pub(crate) use value::{ip_from_hex, ip_hex, ip_range, parse_bool, parse_number};

/// What happens to fields that the mapping does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dynamic {
    /// They are added.
    True,
    /// They are kept in `_source` only.
    False,
    /// The document is rejected.
    Strict,
}

/// Type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Analysed text.
    Text,
    /// One term.
    Keyword,
    /// 64-bit integer.
    Long,
    /// 32-bit integer.
    Integer,
    /// 16-bit integer.
    Short,
    /// 8-bit integer.
    Byte,
    /// 64-bit float.
    Double,
    /// 32-bit float.
    Float,
    /// 16-bit float.
    HalfFloat,
    /// A long with a factor.
    ScaledFloat,
    /// True or false.
    Boolean,
    /// Milliseconds since the epoch.
    Date,
    /// IPv4 or IPv6 address.
    Ip,
    /// All leaves of an object as keywords.
    Flattened,
    /// Base64, only in `_source`.
    Binary,
    /// Another name of a field.
    Alias,
}

impl FieldKind {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("text", Self::Text),
        ("match_only_text", Self::Text),
        ("keyword", Self::Keyword),
        ("wildcard", Self::Keyword),
        ("version", Self::Keyword),
        ("long", Self::Long),
        ("unsigned_long", Self::Long),
        ("integer", Self::Integer),
        ("short", Self::Short),
        ("byte", Self::Byte),
        ("double", Self::Double),
        ("float", Self::Float),
        ("half_float", Self::HalfFloat),
        ("scaled_float", Self::ScaledFloat),
        ("boolean", Self::Boolean),
        ("date", Self::Date),
        ("date_nanos", Self::Date),
        ("ip", Self::Ip),
        ("flattened", Self::Flattened),
        ("binary", Self::Binary),
        ("alias", Self::Alias),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
    }

    /// Elasticsearch's name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("object", |(name, _)| name)
    }

    /// Whether values are numbers for queries and aggregations (dates and booleans are not).
    pub fn is_numeric(self) -> bool {
        self.is_integer() || self.is_float()
    }

    /// Whether values are whole numbers.
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Long | Self::Integer | Self::Short | Self::Byte)
    }

    /// Whether values are floating-point numbers.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Double | Self::Float | Self::HalfFloat | Self::ScaledFloat)
    }
}

/// A mapped field as written by the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its type.
    pub kind: FieldKind,
    /// The type's name as written; several names share a kind.
    pub type_name: String,
    /// Parameters other than `type` and `fields`, without those at their default.
    pub params: Map<String, Value>,
    /// Multi-fields.
    pub fields: BTreeMap<String, Self>,
}

/// A mapped object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its own `dynamic`, inherited when `None`.
    pub dynamic: Option<Dynamic>,
    /// Whether its content is indexed at all.
    pub enabled: bool,
    /// What it holds.
    pub properties: BTreeMap<String, Node>,
}

impl Default for Object {
    fn default() -> Self {
        Self { dynamic: None, enabled: true, properties: BTreeMap::new() }
    }
}

/// A property.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A field with values.
    Field(Field),
    /// An object with further properties.
    Object(Object),
}

/// The mapping of an index.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mapping {
    /// The root object.
    pub root: Object,
    /// Root settings such as `_source`, `_meta`, `date_detection`, `dynamic_templates`.
    pub settings: Map<String, Value>,
}

impl Mapping {
    /// Reads the object under `mappings`.
    pub fn parse(value: &Value) -> crate::Result<Self> {
        parse::mapping(value)
    }

    /// Writes the object under `mappings`.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        if let Some(dynamic) = self.root.dynamic {
            out.insert("dynamic".into(), dynamic_json(dynamic));
        }
        out.extend(self.settings.clone());
        if !self.root.properties.is_empty() {
            out.insert("properties".into(), properties_json(&self.root.properties));
        }
        Value::Object(out)
    }

    /// This mapping with `update` added; what contradicts is Elasticsearch's error.
    pub fn merge(&self, update: &Self) -> crate::Result<Self> {
        merge::merge(self, update)
    }

    /// Number of fields, objects and multi-fields.
    pub fn field_count(&self) -> usize {
        count(&self.root)
    }

    /// Whether `_source` is kept.
    pub fn source_enabled(&self) -> bool {
        self.settings.get("_source").and_then(|s| s.get("enabled")) != Some(&json!(false))
    }

    /// Whether operations must name a routing.
    pub fn routing_required(&self) -> bool {
        self.settings.get("_routing").and_then(|s| s.get("required")) == Some(&json!(true))
    }
}

fn count(object: &Object) -> usize {
    object
        .properties
        .values()
        .map(|node| match node {
            Node::Field(field) => 1 + field.fields.len(),
            Node::Object(inner) => 1 + count(inner),
        })
        .sum()
}

fn dynamic_json(dynamic: Dynamic) -> Value {
    json!(match dynamic {
        Dynamic::True => "true",
        Dynamic::False => "false",
        Dynamic::Strict => "strict",
    })
}

fn properties_json(properties: &BTreeMap<String, Node>) -> Value {
    let nodes = properties.iter().map(|(name, node)| (name.clone(), node_json(node)));
    Value::Object(nodes.collect())
}

fn node_json(node: &Node) -> Value {
    match node {
        Node::Field(field) => field_json(field),
        Node::Object(object) => {
            let mut out = Map::new();
            if let Some(dynamic) = object.dynamic {
                out.insert("dynamic".into(), dynamic_json(dynamic));
            }
            if !object.enabled {
                out.insert("enabled".into(), json!(false));
            }
            if object.properties.is_empty() {
                out.insert("type".into(), json!("object"));
            } else {
                out.insert("properties".into(), properties_json(&object.properties));
            }
            Value::Object(out)
        }
    }
}

fn field_json(field: &Field) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), json!(field.type_name));
    out.extend(field.params.clone());
    if !field.fields.is_empty() {
        let fields = field.fields.iter().map(|(name, field)| (name.clone(), field_json(field)));
        out.insert("fields".into(), Value::Object(fields.collect()));
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests;
