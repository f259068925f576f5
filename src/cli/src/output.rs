//! Printing: tables for people, JSON lines for programs, progress bars for both on stderr.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

/// Prints one line on stdout at once. A reader that went away (`| head`) is no error.
pub fn say(line: impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints a note on stderr, where it does not mix with results.
pub fn note(line: impl Display) {
    // Nothing useful is left to do when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// A table without frame, columns aligned also for wide (Korean) characters; no newline at the
/// end.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// A table of JSON objects: the columns are the keys of the first row's order, nested values in
/// their JSON text.
pub fn table_of(rows: &[Value]) -> String {
    let mut header: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        for key in row.keys() {
            if !header.contains(&key.as_str()) {
                header.push(key);
            }
        }
    }
    let cells = rows.iter().map(|r| header.iter().map(|k| cell(&r[*k])).collect()).collect();
    table(&header, cells)
}

/// A JSON value as a table shows it.
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Bytes as people read them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).unwrap_or(&"B");
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {unit_name}") }
}

/// A progress bar on stderr; hidden when stderr is no terminal.
pub fn progress(total: u64, what: &'static str) -> ProgressBar {
    let bar = if io::stderr().is_terminal() {
        ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
    } else {
        ProgressBar::hidden()
    };
    let style = ProgressStyle::with_template("{msg:12} {wide_bar} {pos}/{len} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn columns_align_after_wide_characters() {
        let rows = vec![
            vec!["뉴스".to_owned(), "3".to_owned()],
            vec!["news-en".to_owned(), "12".to_owned()],
        ];
        expect![[r#"
            name     files
            뉴스     3
            news-en  12"#]]
        .assert_eq(&table(&["name", "files"], rows));
    }

    #[test]
    fn bytes_are_short() {
        let texts = [0, 1023, 1024, 1_572_864, 5 << 40].map(bytes);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "5.0 TiB"]);
    }
}
