//! Counting, and writing what was counted in the Prometheus text format (version 0.0.4).
//!
//! Names of topics and groups come from clients, so labels are bounded: [`Capped`] keeps a value
//! for each of the first names and one, named [`OTHER`], for all beyond.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

/// The label of everything that has no label of its own.
pub const OTHER: &str = "other";

/// Upper bounds of a [`Histogram`]'s buckets, in microseconds.
const BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_000, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// What a family of metrics is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// Durations, counted in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A value per name, for a bounded number of names.
#[derive(Debug)]
pub struct Capped<T> {
    limit: usize,
    named: RwLock<BTreeMap<String, Arc<T>>>,
    other: Arc<T>,
}

impl<T: Default> Capped<T> {
    /// At most `limit` names have a value of their own.
    pub fn new(limit: usize) -> Self {
        Self { limit, named: RwLock::default(), other: Arc::default() }
    }

    /// The value of a name, or the one of all beyond the limit.
    pub fn get(&self, name: &str) -> Arc<T> {
        if let Some(value) = self.named.read().get(name) {
            return value.clone();
        }
        let mut named = self.named.write();
        if named.len() >= self.limit && !named.contains_key(name) {
            return self.other.clone();
        }
        named.entry(name.to_owned()).or_default().clone()
    }

    /// Forgets names that are no longer wanted.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.named.write().retain(|name, _| wanted(name));
    }

    /// Every name with its value, and [`OTHER`] last.
    pub fn all(&self) -> Vec<(String, Arc<T>)> {
        let named = self.named.read();
        let own = named.iter().map(|(name, value)| (name.clone(), value.clone()));
        own.chain([(OTHER.to_owned(), self.other.clone())]).collect()
    }
}

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family; its samples follow. `help` is one line.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of the family begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        if !labels.is_empty() {
            self.0.push('{');
            for (at, (label, text)) in labels.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                let _ = write!(self.0, "{comma}{label}=\"{}\"", Escaped(text));
            }
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A family with one value.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// One histogram of the family begun last, in seconds.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], value: &Histogram) {
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        let count = value.count();
        for (bound, held) in BOUNDS_US.iter().zip(&value.buckets) {
            below += held.load(Ordering::Relaxed);
            let bound = seconds(*bound).to_string();
            // Counted while this is written: a bucket never shows more than the whole.
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), below.min(count));
        }
        self.sample(&bucket, &[labels, &[("le", "+Inf")]].concat(), count);
        let sum = seconds(value.sum_us.load(Ordering::Relaxed));
        self.sample(&format!("{name}_sum"), labels, sum);
        self.sample(&format!("{name}_count"), labels, count);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// A label's text inside quotes.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for part in self.0.chars() {
            match part {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.family("f_total", Kind::Counter, "What it counts.");
        text.sample("f_total", &[("a", "x\"\\\n"), ("b", "뉴스")], 3);
        text.single("g", Kind::Gauge, "One.", 0.5);
        let expected = "# HELP f_total What it counts.\n# TYPE f_total counter\n\
                        f_total{a=\"x\\\"\\\\\\n\",b=\"뉴스\"} 3\n\
                        # HELP g One.\n# TYPE g gauge\ng 0.5\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn buckets_add_up() {
        let histogram = Histogram::default();
        for ms in [0, 1, 2, 3, 60_000] {
            histogram.add(Duration::from_millis(ms));
        }
        let mut text = Text::default();
        text.histogram("h", &[("r", "x")], &histogram);
        let text = text.finish();
        for line in [
            "h_bucket{r=\"x\",le=\"0.0005\"} 1",
            "h_bucket{r=\"x\",le=\"0.001\"} 2",
            "h_bucket{r=\"x\",le=\"0.005\"} 4",
            "h_bucket{r=\"x\",le=\"10\"} 4",
            "h_bucket{r=\"x\",le=\"+Inf\"} 5",
            "h_sum{r=\"x\"} 60.006",
            "h_count{r=\"x\"} 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn names_beyond_the_limit_share_a_value() {
        let capped: Capped<AtomicU64> = Capped::new(2);
        for name in ["a", "b", "c", "d", "a"] {
            capped.get(name).fetch_add(1, Ordering::Relaxed);
        }
        let counts = |capped: &Capped<AtomicU64>| -> Vec<(String, u64)> {
            let all = capped.all().into_iter();
            all.map(|(name, value)| (name, value.load(Ordering::Relaxed))).collect()
        };
        let expected = [("a", 2), ("b", 1), (OTHER, 2)].map(|(n, v)| (n.to_owned(), v));
        assert_eq!(counts(&capped), expected);
        capped.retain(|name| name != "a");
        capped.get("c").fetch_add(5, Ordering::Relaxed);
        assert_eq!(counts(&capped)[1], ("c".to_owned(), 5));
    }
}
