//! The compiled form of a mapping.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Dynamic, Field, FieldKind, Mapping, Node, Object, merge, value};
use crate::analysis::{Analysis, Analyzer};
use crate::dates::{DEFAULT_FORMAT, DateFormat};
use crate::error::{EsError, Result};

/// How values of a field are kept in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueClass {
    /// Terms with positions and length norms.
    Text,
    /// Terms and a column of strings.
    Keyword,
    /// A column of integers; dates and booleans too.
    Long,
    /// A column of floating-point numbers.
    Double,
    /// Nothing.
    None,
}

/// One field, ready to index and search.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldDef {
    /// Full path, multi-fields included: `title.keyword`.
    pub path: String,
    /// Type.
    pub kind: FieldKind,
    /// The type's name as written in the mapping.
    pub type_name: String,
    /// Index-time analyzer of a text.
    pub analyzer: Arc<Analyzer>,
    /// Search-time analyzer of a text.
    pub search_analyzer: Arc<Analyzer>,
    /// Normalizer of a keyword.
    pub normalizer: Option<Arc<Analyzer>>,
    /// Whether it can be searched.
    pub index: bool,
    /// Whether it can be sorted and aggregated.
    pub doc_values: bool,
    /// Whether `stored_fields` shows it.
    pub store: bool,
    /// Longest keyword, in UTF-16 units.
    pub ignore_above: Option<usize>,
    /// What stands for an explicit null.
    pub null_value: Option<Value>,
    /// Format of dates.
    pub format: DateFormat,
    /// Factor of `scaled_float`.
    pub scaling_factor: f64,
    /// Whether fractions are cut from integers.
    pub coerce: bool,
    /// Whether bad values are skipped.
    pub ignore_malformed: bool,
    /// Fields that get the value too.
    pub copy_to: Vec<String>,
    /// Multi-fields.
    pub multi: Vec<Arc<Self>>,
    /// Path of the property that this is a multi-field of.
    pub parent: Option<String>,
    /// Whether every key below is part of it.
    pub flattened_root: Option<String>,
}

impl FieldDef {
    /// How values are kept.
    pub fn class(&self) -> ValueClass {
        match self.kind {
            FieldKind::Text => ValueClass::Text,
            FieldKind::Keyword | FieldKind::Ip | FieldKind::Flattened => ValueClass::Keyword,
            FieldKind::Long
            | FieldKind::Integer
            | FieldKind::Short
            | FieldKind::Byte
            | FieldKind::Boolean
            | FieldKind::Date => ValueClass::Long,
            FieldKind::Double
            | FieldKind::Float
            | FieldKind::HalfFloat
            | FieldKind::ScaledFloat => ValueClass::Double,
            FieldKind::Binary | FieldKind::Alias => ValueClass::None,
        }
    }

    /// Whether sorting and aggregations work on it.
    pub fn is_aggregatable(&self) -> bool {
        self.doc_values && !matches!(self.class(), ValueClass::Text | ValueClass::None)
    }

    /// A number rounded as the field stores it.
    pub(crate) fn round(&self, number: f64) -> f64 {
        value::round_float(self, number)
    }
}

/// A mapping with its analyzers resolved.
#[derive(Clone, Debug)]
pub struct IndexSchema {
    mapping: Mapping,
    analysis: Analysis,
    fields: HashMap<String, Arc<FieldDef>>,
    pub(super) date_formats: Vec<DateFormat>,
}

impl IndexSchema {
    /// Compiles a mapping with the analyzers and defaults that the index settings define.
    pub fn new(mapping: Mapping, settings: &Value) -> Result<Self> {
        let analysis = Analysis::new(settings)?;
        let default = |name: &str, otherwise| {
            settings.get(name).and_then(super::parse_bool).unwrap_or(otherwise)
        };
        let mut compiler = Compiler {
            analysis: &analysis,
            fields: HashMap::new(),
            coerce: default("index.mapping.coerce", true),
            ignore_malformed: default("index.mapping.ignore_malformed", false),
        };
        compiler.object(&mapping.root, "")?;
        let fields = compiler.fields;
        let date_formats = match mapping.settings.get("dynamic_date_formats") {
            Some(Value::Array(list)) => list
                .iter()
                .filter_map(Value::as_str)
                .map(DateFormat::new)
                .collect::<Result<Vec<_>>>()?,
            _ => vec![
                DateFormat::new("strict_date_optional_time")?,
                DateFormat::new("yyyy/MM/dd HH:mm:ss Z||yyyy/MM/dd Z")?,
            ],
        };
        Ok(Self { mapping, analysis, fields, date_formats })
    }

    /// The mapping.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// The analyzers of the index.
    pub fn analysis(&self) -> &Analysis {
        &self.analysis
    }

    /// A field by its full path; aliases are followed and keys below a flattened field found.
    pub fn field(&self, path: &str) -> Option<Arc<FieldDef>> {
        if let Some(field) = self.fields.get(path) {
            if field.kind != FieldKind::Alias {
                return Some(field.clone());
            }
            let target = field.parent.as_deref()?;
            return self.fields.get(target).filter(|f| f.kind != FieldKind::Alias).cloned();
        }
        let mut end = path.len();
        while let Some(dot) = path.get(..end)?.rfind('.') {
            end = dot;
            let field = self.fields.get(path.get(..end)?);
            if let Some(field) = field.filter(|field| field.kind == FieldKind::Flattened) {
                let mut sub = FieldDef::clone(field);
                path.clone_into(&mut sub.path);
                return Some(Arc::new(sub));
            }
        }
        None
    }

    /// All fields by path.
    pub fn fields(&self) -> BTreeMap<&str, &Arc<FieldDef>> {
        self.fields.iter().map(|(path, field)| (path.as_str(), field)).collect()
    }

    /// Paths that match a pattern with `*`.
    pub fn matching(&self, pattern: &str) -> Vec<Arc<FieldDef>> {
        if !pattern.contains('*') {
            return self.field(pattern).into_iter().collect();
        }
        let mut found: Vec<_> = self
            .fields
            .iter()
            .filter(|(path, field)| field.kind != FieldKind::Alias && wildcard_match(pattern, path))
            .map(|(_, field)| field.clone())
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Whether a path is an object of the mapping.
    pub fn is_object(&self, path: &str) -> bool {
        let mut object = &self.mapping.root;
        for part in path.split('.') {
            match object.properties.get(part) {
                Some(Node::Object(inner)) => object = inner,
                _ => return false,
            }
        }
        true
    }

    /// A field exactly as declared, aliases included.
    pub(super) fn declared(&self, path: &str) -> Option<Arc<FieldDef>> {
        self.fields.get(path).cloned()
    }

    pub(super) fn root_dynamic(&self) -> Dynamic {
        self.mapping.root.dynamic.unwrap_or(Dynamic::True)
    }
}

/// Matches `*` against any run of characters.
pub(crate) fn wildcard_match(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(first) = parts.next() else { return text.is_empty() };
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = parts.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or(""),
            None => return false,
        }
    }
    rest.ends_with(last)
}

struct Compiler<'a> {
    analysis: &'a Analysis,
    fields: HashMap<String, Arc<FieldDef>>,
    /// Default of the index for fields that do not say: `index.mapping.coerce`.
    coerce: bool,
    /// Likewise `index.mapping.ignore_malformed`.
    ignore_malformed: bool,
}

impl Compiler<'_> {
    fn object(&mut self, object: &Object, prefix: &str) -> Result<()> {
        for (name, node) in &object.properties {
            let path = merge::join(prefix, name);
            match node {
                Node::Object(inner) => self.object(inner, &path)?,
                Node::Field(field) => {
                    let def = self.field(field, &path, None)?;
                    for sub in &def.multi {
                        self.fields.insert(sub.path.clone(), sub.clone());
                    }
                    self.fields.insert(path, Arc::new(def));
                }
            }
        }
        Ok(())
    }

    fn field(&self, field: &Field, path: &str, parent: Option<&str>) -> Result<FieldDef> {
        let params = &field.params;
        let mut multi = Vec::new();
        for (name, sub) in &field.fields {
            let sub_path = merge::join(path, name);
            multi.push(Arc::new(self.field(sub, &sub_path, Some(path))?));
        }
        let analyzer = self.analyzer(params, "analyzer", path)?;
        let search_analyzer = match self.analyzer(params, "search_analyzer", path)? {
            Some(analyzer) => Some(analyzer),
            None => analyzer.clone(),
        };
        let default = || self.analysis.analyzer("default").unwrap_or_else(fallback);
        let flag = |key: &str, default: bool| {
            params.get(key).and_then(super::parse_bool).unwrap_or(default)
        };
        let format = params.get("format").and_then(Value::as_str).unwrap_or(DEFAULT_FORMAT);
        let alias = params.get("path").and_then(Value::as_str).map(str::to_owned);
        let flattened = field.kind == FieldKind::Flattened;
        Ok(FieldDef {
            path: path.to_owned(),
            kind: field.kind,
            type_name: field.type_name.clone(),
            analyzer: Arc::new(analyzer.unwrap_or_else(default)),
            search_analyzer: Arc::new(search_analyzer.unwrap_or_else(default)),
            normalizer: self.normalizer(params, path)?,
            index: flag("index", true),
            doc_values: flag("doc_values", true),
            store: flag("store", false),
            ignore_above: number(params, "ignore_above"),
            null_value: params.get("null_value").filter(|v| !v.is_null()).cloned(),
            format: DateFormat::new(format)?,
            scaling_factor: params.get("scaling_factor").and_then(Value::as_f64).unwrap_or(1.0),
            coerce: flag("coerce", self.coerce),
            ignore_malformed: flag("ignore_malformed", self.ignore_malformed),
            copy_to: strings(params.get("copy_to")),
            multi,
            parent: alias.or_else(|| parent.map(str::to_owned)),
            flattened_root: flattened.then(|| path.to_owned()),
        })
    }

    fn analyzer(
        &self,
        params: &Map<String, Value>,
        key: &str,
        path: &str,
    ) -> Result<Option<Analyzer>> {
        let Some(name) = params.get(key).and_then(Value::as_str) else { return Ok(None) };
        self.analysis.analyzer(name).map(Some).ok_or_else(|| {
            let text = format!("analyzer [{name}] has not been configured in mappings");
            let cause = EsError::illegal(text.clone());
            let _path = path;
            EsError::mapper_parsing(format!("Failed to parse mapping [_doc]: {text}"))
                .caused_by(cause)
        })
    }

    fn normalizer(&self, params: &Map<String, Value>, path: &str) -> Result<Option<Arc<Analyzer>>> {
        let Some(name) = params.get("normalizer").and_then(Value::as_str) else {
            return Ok(None);
        };
        let found = self.analysis.normalizer(name).ok_or_else(|| {
            EsError::mapper_parsing(format!(
                "Failed to parse mapping [_doc]: normalizer [{name}] not found for field [{path}]"
            ))
        })?;
        Ok(Some(Arc::new(found)))
    }
}

fn fallback() -> Analyzer {
    Analyzer {
        name: "default".to_owned(),
        tokenizer: crate::analysis::Tokenizer::standard(),
        filters: vec![crate::analysis::Filter::Lowercase],
    }
}

fn number(params: &Map<String, Value>, key: &str) -> Option<usize> {
    super::parse_number(params.get(key)?).map(|n| n.max(0.0) as usize)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(list)) => {
            list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}
