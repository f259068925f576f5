//! Parsing documents against a mapping.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::compiled::{FieldDef, IndexSchema};
use super::{Dynamic, FieldKind, Mapping, Node, Object, dynamic, parse, value};
use crate::error::{EsError, Result};
use crate::limits;

/// A value of a field, ready for the index.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// Text to analyse.
    Text(String),
    /// A normalised keyword.
    Keyword(String),
    /// An integer, a date or a boolean.
    Long(i64),
    /// A floating-point number.
    Double(f64),
}

/// One value with its field.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The field.
    pub field: Arc<FieldDef>,
    /// Path under which it is indexed; below a flattened field it is longer than the field's.
    pub path: String,
    /// The value.
    pub value: FieldValue,
}

/// A document as the index will hold it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedDocument {
    /// All values of mapped fields.
    pub entries: Vec<Entry>,
    /// Fields to add to the mapping first; merge, compile and parse again before indexing, since
    /// later values of the same document may not fit the new fields.
    pub update: Option<Mapping>,
    /// Fields whose values were left out.
    pub ignored: Vec<String>,
}

impl IndexSchema {
    /// Parses `_source`. The id is for error texts only.
    pub fn parse_document(&self, id: &str, source: &[u8]) -> Result<ParsedDocument> {
        let not_object = || {
            EsError::mapper_parsing("failed to parse").caused_by(EsError::new(
                400,
                "not_x_content_exception",
                "Compressor detection can only be called on some xcontent bytes or compressed \
                 xcontent bytes",
            ))
        };
        let value: Value = serde_json::from_slice(source).map_err(|e| {
            EsError::mapper_parsing("failed to parse").caused_by(EsError::new(
                400,
                "json_parse_exception",
                e.to_string(),
            ))
        })?;
        let Value::Object(object) = &value else { return Err(not_object()) };
        let mut walk =
            Walk { schema: self, id, out: ParsedDocument::default(), update: Object::default() };
        let place = Place {
            mapping: Some(&self.mapping().root),
            dynamic: self.root_dynamic(),
            path: String::new(),
            depth: 0,
        };
        walk.object(object, &place)?;
        if !walk.update.properties.is_empty() {
            walk.out.update = Some(Mapping { root: walk.update, settings: Map::new() });
        }
        Ok(walk.out)
    }
}

struct Walk<'a> {
    schema: &'a IndexSchema,
    id: &'a str,
    out: ParsedDocument,
    update: Object,
}

/// Where in the mapping the walk stands.
#[derive(Clone)]
struct Place<'a> {
    mapping: Option<&'a Object>,
    dynamic: Dynamic,
    path: String,
    depth: usize,
}

impl<'a> Place<'a> {
    fn enter(&self, name: &str, mapping: Option<&'a Object>) -> Self {
        Self {
            mapping,
            dynamic: mapping.and_then(|object| object.dynamic).unwrap_or(self.dynamic),
            path: super::merge::join(&self.path, name),
            depth: self.depth + 1,
        }
    }
}

impl<'a> Walk<'a> {
    fn object(&mut self, object: &Map<String, Value>, place: &Place<'a>) -> Result<()> {
        if place.depth > limits::MAX_OBJECT_DEPTH {
            return Err(EsError::mapper_parsing(format!(
                "The depth of the field has exceeded the allowed limit of [{}]",
                limits::MAX_OBJECT_DEPTH
            )));
        }
        for (key, value) in object {
            self.key(key, value, place)?;
        }
        Ok(())
    }

    /// One key; dots in it stand for objects.
    fn key(&mut self, key: &str, value: &Value, place: &Place<'a>) -> Result<()> {
        if key.is_empty() || key.split('.').any(|part| part.trim().is_empty()) {
            return Err(EsError::mapper_parsing("failed to parse").caused_by(EsError::illegal(
                format!(
                    "object field starting or ending with a [.] makes object resolution \
                     ambiguous: [{key}]"
                ),
            )));
        }
        match key.split_once('.') {
            Some((head, rest)) if !self.is_field(head, place) => {
                let inner = place.mapping.and_then(|object| match object.properties.get(head) {
                    Some(Node::Object(inner)) => Some(inner),
                    _ => None,
                });
                if inner.is_some_and(|object| !object.enabled) {
                    return Ok(());
                }
                if inner.is_none() && !self.may_add(place, head)? {
                    return Ok(());
                }
                self.key(rest, value, &place.enter(head, inner))
            }
            Some((head, _)) if !self.is_flattened(head, place) => {
                let path = super::merge::join(&place.path, head);
                Err(EsError::mapper_parsing(format!(
                    "Could not dynamically add mapping for field [{key}]. Existing mapping for \
                     [{path}] must be of type object but found [{}].",
                    self.schema.field(&path).map_or_else(String::new, |f| f.type_name.clone())
                )))
            }
            _ => self.value(key, value, place),
        }
    }

    fn is_field(&self, name: &str, place: &Place<'a>) -> bool {
        place.mapping.is_some_and(|o| matches!(o.properties.get(name), Some(Node::Field(_))))
    }

    fn is_flattened(&self, name: &str, place: &Place<'a>) -> bool {
        place.mapping.is_some_and(|object| {
            matches!(object.properties.get(name),
                Some(Node::Field(field)) if field.kind == FieldKind::Flattened)
        })
    }

    /// Whether an unmapped name may be added here.
    fn may_add(&self, place: &Place<'a>, name: &str) -> Result<bool> {
        match place.dynamic {
            Dynamic::True => Ok(true),
            Dynamic::False => Ok(false),
            Dynamic::Strict => {
                let within = if place.path.is_empty() { "_doc" } else { &place.path };
                Err(EsError::new(
                    400,
                    "strict_dynamic_mapping_exception",
                    format!(
                        "mapping set to strict, dynamic introduction of [{name}] within \
                         [{within}] is not allowed"
                    ),
                ))
            }
        }
    }

    fn value(&mut self, name: &str, value: &Value, place: &Place<'a>) -> Result<()> {
        match place.mapping.and_then(|object| object.properties.get(name)) {
            Some(Node::Object(inner)) if !inner.enabled => Ok(()),
            Some(Node::Object(inner)) => {
                self.under_object(name, value, &place.enter(name, Some(inner)))
            }
            Some(Node::Field(_)) => {
                let path = super::merge::join(&place.path, name);
                match self.schema.declared(&path) {
                    Some(field) if field.kind == FieldKind::Alias => Err(EsError::mapper_parsing(
                        format!("Cannot write to a field alias [{path}]."),
                    )),
                    Some(field) => self.field(&field, value),
                    None => Ok(()),
                }
            }
            None => self.unmapped(name, value, place),
        }
    }

    fn under_object(&mut self, name: &str, value: &Value, place: &Place<'a>) -> Result<()> {
        match value {
            Value::Object(object) => self.object(object, place),
            Value::Null => Ok(()),
            Value::Array(list) => {
                list.iter().try_for_each(|item| self.under_object(name, item, place))
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(EsError::mapper_parsing(format!(
                    "object mapping for [{}] tried to parse field [{name}] as object, but found \
                     a concrete value",
                    place.path
                )))
            }
        }
    }

    fn unmapped(&mut self, name: &str, value: &Value, place: &Place<'a>) -> Result<()> {
        match value {
            Value::Null => Ok(()),
            Value::Array(list) => list.iter().try_for_each(|item| self.unmapped(name, item, place)),
            _ if !self.may_add(place, name)? => Ok(()),
            _ => {
                let path = super::merge::join(&place.path, name);
                let template = dynamic::template(self.schema, &path, name, value)?;
                match (template, value) {
                    (Some(node), _) => {
                        let deeper = matches!(node, Node::Object(_));
                        dynamic::add(&mut self.update, &path, node);
                        match value {
                            Value::Object(o) if deeper => self.object(o, &place.enter(name, None)),
                            _ => Ok(()),
                        }
                    }
                    (None, Value::Object(object)) => {
                        dynamic::add(&mut self.update, &path, Node::Object(Object::default()));
                        self.object(object, &place.enter(name, None))
                    }
                    (None, leaf) => {
                        let node = dynamic::infer(self.schema, leaf);
                        dynamic::add(&mut self.update, &path, node);
                        Ok(())
                    }
                }
            }
        }
    }

    fn field(&mut self, field: &Arc<FieldDef>, value: &Value) -> Result<()> {
        if field.kind == FieldKind::Flattened {
            return self.flattened(field, value, &field.path.clone(), 0);
        }
        match value {
            Value::Array(list) => list.iter().try_for_each(|item| self.field(field, item)),
            Value::Null => match &field.null_value {
                Some(default) => self.leaf(field, &default.clone()),
                None => Ok(()),
            },
            leaf => self.leaf(field, leaf),
        }
    }

    fn leaf(&mut self, field: &Arc<FieldDef>, leaf: &Value) -> Result<()> {
        self.one(field, leaf)?;
        for sub in &field.multi {
            self.one(sub, leaf)?;
        }
        for target in &field.copy_to {
            match self.schema.field(target) {
                Some(target) => self.one(&target, leaf)?,
                None => {
                    let node = dynamic::infer(self.schema, leaf);
                    dynamic::add(&mut self.update, target, node);
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, field: &Arc<FieldDef>, leaf: &Value) -> Result<()> {
        match value::convert(field, leaf) {
            Ok(Some(value)) => {
                let path = field.path.clone();
                self.out.entries.push(Entry { field: field.clone(), path, value });
            }
            Ok(None) => self.out.ignored.push(field.path.clone()),
            Err(_) if field.ignore_malformed && !leaf.is_object() => {
                self.out.ignored.push(field.path.clone());
            }
            Err(cause) => {
                return Err(EsError::mapper_parsing(format!(
                    "failed to parse field [{}] of type [{}] in document with id '{}'. Preview of \
                     field's value: '{}'",
                    field.path,
                    field.type_name,
                    self.id,
                    parse::java_text(leaf)
                ))
                .caused_by(cause));
            }
        }
        Ok(())
    }

    /// Every leaf is indexed under the field and under its own key.
    fn flattened(
        &mut self,
        field: &Arc<FieldDef>,
        value: &Value,
        path: &str,
        depth: usize,
    ) -> Result<()> {
        match value {
            Value::Null => Ok(()),
            Value::Object(object) if depth < limits::MAX_OBJECT_DEPTH => {
                object.iter().try_for_each(|(key, value)| {
                    self.flattened(field, value, &format!("{path}.{key}"), depth + 1)
                })
            }
            Value::Array(list) if depth > 0 => {
                list.iter().try_for_each(|item| self.flattened(field, item, path, depth))
            }
            leaf if depth > 0 => {
                if let Some(value) = value::convert(field, leaf)? {
                    let mut put = |path: &str| {
                        let (field, path) = (field.clone(), path.to_owned());
                        self.out.entries.push(Entry { field, path, value: value.clone() });
                    };
                    put(&field.path);
                    put(path);
                }
                Ok(())
            }
            _ => Err(EsError::mapper_parsing(format!(
                "failed to parse field [{path}] of type [flattened] in document with id '{}'",
                self.id
            ))),
        }
    }
}
