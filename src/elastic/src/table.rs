//! Text tables of `_cat`, as Elasticsearch aligns them.
//!
//! Columns are separated by one space and padded to the widest cell; the last column is not
//! padded on its right. Widths are counted as a terminal shows them, so that names in Hangul
//! stay aligned.

use std::cmp::Ordering;

use index::EsError;
use index::names::wildcard_match;
use serde_json::{Map, Value};
use unicode_width::UnicodeWidthStr;

use crate::params::Params;
use crate::reply::Reply;

/// One column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Other names, separated by commas.
    pub aliases: &'static str,
    /// What it says.
    pub about: &'static str,
    /// Numbers stand at the right.
    pub right: bool,
    /// Whether it is shown unless asked for.
    pub default: bool,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Nothing.
    None,
    /// Text.
    Text(String),
    /// A number.
    Number(f64, String),
    /// A size, shown in the unit that `bytes` asks for.
    Bytes(u64),
}

impl Cell {
    /// A whole number.
    pub fn int(value: u64) -> Self {
        Self::Number(value as f64, value.to_string())
    }

    /// Text.
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }

    fn show(&self, unit: Option<Unit>) -> Option<String> {
        match self {
            Self::None => None,
            Self::Text(text) => Some(text.clone()),
            Self::Number(_, text) => Some(text.clone()),
            Self::Bytes(bytes) => Some(match unit {
                Some(unit) => (bytes / unit.0).to_string(),
                None => human_bytes(*bytes),
            }),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a, _), Self::Number(b, _)) => a.total_cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::None, Self::None) => Ordering::Equal,
            (Self::None, _) => Ordering::Less,
            (_, Self::None) => Ordering::Greater,
            (a, b) => a.show(None).cmp(&b.show(None)),
        }
    }
}

#[derive(Clone, Copy)]
struct Unit(u64);

/// A size as Elasticsearch writes it: `1.2kb`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [(&str, u32); 5] = [("pb", 50), ("tb", 40), ("gb", 30), ("mb", 20), ("kb", 10)];
    for (name, shift) in UNITS {
        if bytes >= 1 << shift {
            // One decimal, cut and not rounded, without a trailing zero.
            let tenths = (u128::from(bytes) * 10) >> shift;
            let (whole, tenth) = (tenths / 10, tenths % 10);
            return if tenth == 0 {
                format!("{whole}{name}")
            } else {
                format!("{whole}.{tenth}{name}")
            };
        }
    }
    format!("{bytes}b")
}

fn parse_unit(params: &Params) -> Result<Option<Unit>, EsError> {
    let Some(text) = params.get("bytes") else { return Ok(None) };
    let shift = match text {
        "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        "p" | "pb" => 50,
        other => return Err(EsError::illegal(format!("[{other}] is not a valid bytes unit"))),
    };
    Ok(Some(Unit(1 << shift)))
}

/// A column as asked for: its place and the name to show.
struct Shown {
    at: usize,
    display: String,
}

/// Renders rows as the request wants them.
pub fn render(
    columns: &[Column],
    mut rows: Vec<Vec<Cell>>,
    params: &Params,
) -> Result<Reply, EsError> {
    if params.flag("help", false)? {
        return Ok(Reply::text(help(columns)));
    }
    let shown = shown_columns(columns, params);
    sort_rows(columns, &mut rows, params)?;
    let unit = parse_unit(params)?;
    match params.get("format") {
        None | Some("text" | "txt" | "") => {
            let header = params.flag("v", false)?;
            Ok(Reply::text(text(columns, &shown, &rows, unit, header)))
        }
        Some("json" | "yaml") => Ok(Reply::ok(json(&shown, &rows, unit))),
        Some(other) => Err(EsError::illegal(format!("format [{other}] is not supported"))),
    }
}

fn help(columns: &[Column]) -> String {
    let width = |read: fn(&Column) -> &'static str| {
        columns.iter().map(|column| read(column).width()).max().unwrap_or(0)
    };
    let (names, aliases) = (width(|c| c.name), width(|c| c.aliases));
    let abouts = width(|c| c.about);
    let line = |column: &Column| {
        format!(
            "{} | {} | {}\n",
            pad(column.name, names),
            pad(column.aliases, aliases),
            pad(column.about, abouts)
        )
    };
    columns.iter().map(line).collect()
}

fn pad(text: &str, width: usize) -> String {
    let mut text = text.to_owned();
    let missing = width.saturating_sub(text.width());
    text.extend(std::iter::repeat_n(' ', missing));
    text
}

fn find(columns: &[Column], name: &str) -> Option<usize> {
    columns.iter().position(|column| {
        column.name == name || column.aliases.split(',').any(|alias| alias == name)
    })
}

fn shown_columns(columns: &[Column], params: &Params) -> Vec<Shown> {
    let Some(asked) = params.list("h") else {
        let default = columns.iter().enumerate().filter(|(_, column)| column.default);
        return default.map(|(at, c)| Shown { at, display: c.name.to_owned() }).collect();
    };
    let mut shown: Vec<Shown> = Vec::new();
    for name in asked {
        if name.contains('*') {
            for (at, column) in columns.iter().enumerate() {
                let fits = wildcard_match(name, column.name)
                    || column.aliases.split(',').any(|alias| wildcard_match(name, alias));
                if fits && !shown.iter().any(|known| known.at == at) {
                    shown.push(Shown { at, display: column.name.to_owned() });
                }
            }
        } else if let Some(at) = find(columns, name)
            && !shown.iter().any(|known| known.display == name)
        {
            shown.push(Shown { at, display: name.to_owned() });
        }
    }
    shown
}

fn sort_rows(columns: &[Column], rows: &mut [Vec<Cell>], params: &Params) -> Result<(), EsError> {
    let Some(orders) = params.list("s") else { return Ok(()) };
    let mut keys = Vec::new();
    for order in orders {
        let (name, reverse) = match order.rsplit_once(':') {
            Some((name, "desc")) => (name, true),
            Some((name, "asc")) => (name, false),
            _ => (order, false),
        };
        let at = find(columns, name).ok_or_else(|| {
            EsError::new(
                500,
                "unsupported_operation_exception",
                format!("Unable to sort by unknown sort key `{name}`"),
            )
        })?;
        keys.push((at, reverse));
    }
    rows.sort_by(|a, b| {
        for (at, reverse) in &keys {
            let order = match (a.get(*at), b.get(*at)) {
                (Some(a), Some(b)) => a.compare(b),
                _ => Ordering::Equal,
            };
            let order = if *reverse { order.reverse() } else { order };
            if order != Ordering::Equal {
                return order;
            }
        }
        Ordering::Equal
    });
    Ok(())
}

fn text(
    columns: &[Column],
    shown: &[Shown],
    rows: &[Vec<Cell>],
    unit: Option<Unit>,
    header: bool,
) -> String {
    let mut lines: Vec<Vec<String>> = Vec::new();
    if header {
        lines.push(shown.iter().map(|column| column.display.clone()).collect());
    }
    for row in rows {
        let cells = shown.iter().map(|column| row.get(column.at).and_then(|c| c.show(unit)));
        lines.push(cells.map(Option::unwrap_or_default).collect());
    }
    let width = |i: usize| {
        lines.iter().filter_map(|line| line.get(i)).map(|c| c.width()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..shown.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        for (i, ((cell, width), column)) in line.iter().zip(&widths).zip(shown).enumerate() {
            let right = columns.get(column.at).is_some_and(|column| column.right);
            let space = width.saturating_sub(cell.width());
            let last = i + 1 == shown.len();
            if right {
                out.extend(std::iter::repeat_n(' ', space));
            }
            out.push_str(cell);
            if !right && !last {
                out.extend(std::iter::repeat_n(' ', space));
            }
            if !last {
                out.push(' ');
            }
        }
        out.push('\n');
    }
    out
}

fn json(shown: &[Shown], rows: &[Vec<Cell>], unit: Option<Unit>) -> Value {
    let object = |row: &Vec<Cell>| {
        let mut map = Map::new();
        for column in shown {
            let text = row.get(column.at).and_then(|cell| cell.show(unit));
            map.insert(column.display.clone(), text.map_or(Value::Null, Value::String));
        }
        Value::Object(map)
    };
    Value::Array(rows.iter().map(object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Content;

    const COLUMNS: &[Column] = &[
        Column {
            name: "index",
            aliases: "i,idx",
            about: "index name",
            right: false,
            default: true,
        },
        Column {
            name: "docs.count",
            aliases: "dc,docsCount",
            about: "available docs",
            right: true,
            default: true,
        },
        Column { name: "store", aliases: "ss", about: "size", right: true, default: false },
    ];

    fn check(query: &str, expected: &str) {
        let rows = vec![
            vec![Cell::text("뉴스"), Cell::int(7), Cell::Bytes(1536)],
            vec![Cell::text("abcdef"), Cell::int(12), Cell::Bytes(100)],
        ];
        let reply = render(COLUMNS, rows, &Params::parse(query).unwrap()).unwrap();
        let shown = match reply.content {
            Content::Text(text) => text,
            Content::Json(value) => value.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(shown, expected, "{query}");
    }

    #[test]
    fn tables_are_aligned_by_display_width() {
        check("v", "index  docs.count\n뉴스            7\nabcdef         12\n");
        check("s=dc:desc&h=i,ss", "abcdef  100b\n뉴스   1.5kb\n");
        check("h=ss&bytes=b", "1536\n 100\n");
        check("h=i&format=json", r#"[{"i":"뉴스"},{"i":"abcdef"}]"#);
        check(
            "help",
            "index      | i,idx        | index name    \n\
             docs.count | dc,docsCount | available docs\n\
             store      | ss           | size          \n",
        );
    }

    #[test]
    fn sizes_are_cut_to_one_decimal() {
        assert_eq!(human_bytes(0), "0b");
        assert_eq!(human_bytes(1024), "1kb");
        assert_eq!(human_bytes(3_500_000), "3.3mb");
    }
}
