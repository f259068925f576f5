//! Rates by Kafka's algorithm: bytes are counted in samples of one second, of which eleven are
//! kept; the rate is their sum over the time they span, at least ten seconds. A client above its
//! quota waits until the rate, with nothing more counted, has come down to it.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;

use crate::limits::MAX_SENSORS;
use crate::quota::Bucket;

/// Samples kept (`quota.window.num`).
pub const SAMPLES: usize = 11;
/// Length of a sample in milliseconds (`quota.window.size.seconds`).
pub const SAMPLE_MS: u64 = 1000;

/// What one bucket sent or took lately.
#[derive(Debug, Default)]
struct Sensor {
    /// Start of a sample in milliseconds and what it counted, oldest first.
    samples: VecDeque<(u64, f64)>,
}

const KEPT_MS: u64 = SAMPLES as u64 * SAMPLE_MS;

/// This part of all sensors goes at once when there are too many.
const FORGOTTEN_PART: usize = 10;

impl Sensor {
    fn count(&mut self, now_ms: u64, bytes: f64) {
        while self
            .samples
            .front()
            .is_some_and(|(start, _)| now_ms.saturating_sub(*start) >= KEPT_MS)
        {
            self.samples.pop_front();
        }
        match self.samples.back_mut() {
            Some((start, sum)) if now_ms.saturating_sub(*start) < SAMPLE_MS => *sum += bytes,
            _ => self.samples.push_back((now_ms, bytes)),
        }
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// How long to wait until the rate is `bound` bytes per second.
    fn wait(&self, now_ms: u64, bound: f64) -> Duration {
        let Some((oldest, _)) = self.samples.front() else { return Duration::ZERO };
        // Kafka's `Rate.windowSize`: missing samples count as whole, empty ones.
        let spanned_ms = now_ms.saturating_sub(*oldest);
        let missing = (SAMPLES as u64 - 1).saturating_sub(spanned_ms / SAMPLE_MS);
        let window_ms = spanned_ms + missing * SAMPLE_MS;
        let window = Duration::from_millis(window_ms).as_secs_f64();
        let sum: f64 = self.samples.iter().map(|(_, bytes)| bytes).sum();
        let rate = sum / window;
        if rate <= bound {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64((rate - bound) / bound * window).unwrap_or(Duration::MAX)
    }

    fn last_ms(&self) -> u64 {
        self.samples.back().map_or(0, |(start, _)| *start)
    }
}

/// The sensors of one quota on this node.
#[derive(Debug, Default)]
pub struct Sensors(Mutex<HashMap<Bucket, Sensor>>);

impl Sensors {
    /// Counts bytes at `now` (monotonic), and says how long the client must wait.
    pub fn record(&self, bucket: Bucket, bytes: usize, bound: f64, now: Duration) -> Duration {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        #[expect(clippy::cast_precision_loss, reason = "rates need no last byte")]
        let bytes = bytes as f64;
        let mut sensors = self.0.lock();
        if sensors.len() >= MAX_SENSORS && !sensors.contains_key(&bucket) {
            forget_idlest(&mut sensors, now_ms);
        }
        let sensor = sensors.entry(bucket).or_default();
        sensor.count(now_ms, bytes);
        sensor.wait(now_ms, bound)
    }

    /// How long a client must wait at `now` for what was counted before.
    pub fn wait(&self, bucket: &Bucket, bound: f64, now: Duration) -> Duration {
        let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let mut sensors = self.0.lock();
        let Some(sensor) = sensors.get_mut(bucket) else { return Duration::ZERO };
        sensor.count(now_ms, 0.0);
        sensor.wait(now_ms, bound)
    }

    /// Buckets followed.
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Whether nothing is followed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Forgets everything that is too old to count, else those longest idle: many at once, as it looks
/// at all of them.
fn forget_idlest(sensors: &mut HashMap<Bucket, Sensor>, now_ms: u64) {
    sensors.retain(|_, sensor| now_ms.saturating_sub(sensor.last_ms()) < KEPT_MS);
    if sensors.len() >= MAX_SENSORS {
        let mut last: Vec<u64> = sensors.values().map(Sensor::last_ms).collect();
        let count = MAX_SENSORS / FORGOTTEN_PART;
        let (older, limit, _) = last.select_nth_unstable(count - 1);
        let limit = *limit;
        // Of those that were last seen at the same moment as the last one that goes, some stay.
        let mut at_limit = count - older.iter().filter(|at| **at < limit).count();
        sensors.retain(|_, sensor| match sensor.last_ms().cmp(&limit) {
            Ordering::Less => false,
            Ordering::Equal if at_limit > 0 => {
                at_limit -= 1;
                false
            }
            Ordering::Equal | Ordering::Greater => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends as fast as it may; returns bytes after so many milliseconds.
    fn sent_within(bound: f64, each: usize, limit_ms: u64) -> usize {
        let sensors = Sensors::default();
        let (mut now, mut sent) = (Duration::from_secs(5), 0);
        while now < Duration::from_millis(5000 + limit_ms) {
            sent += each;
            now += sensors.record(Bucket::default(), each, bound, now) + Duration::from_millis(1);
        }
        sent
    }

    #[test]
    fn the_rate_settles_at_the_quota() {
        let sent = sent_within(100_000.0, 20_000, 60_000);
        // The first ten seconds' worth may come at once.
        assert!((6_000_000..=7_200_000).contains(&sent), "{sent}");
        assert!(sent_within(1e9, 20_000, 1000) >= 20_000_000, "below the quota nobody waits");
    }

    #[test]
    fn the_wait_is_what_kafka_would_say() {
        let sensors = Sensors::default();
        // 30,000 bytes in a window of 10 s are 3,000 B/s; down to 1,000 takes 20 s.
        let wait = sensors.record(Bucket::default(), 30_000, 1000.0, Duration::from_secs(1));
        assert_eq!(wait, Duration::from_secs(20));
        // 300 ms later the window is 10.3 s.
        let wait = sensors.record(Bucket::default(), 0, 1000.0, Duration::from_millis(1300));
        assert_eq!(wait, Duration::from_millis(19_700));
        let wait = sensors.record(Bucket::default(), 0, 1000.0, Duration::from_millis(11_999));
        assert_eq!(wait, Duration::from_millis(19_001));
        let wait = sensors.record(Bucket::default(), 0, 1000.0, Duration::from_secs(12));
        assert_eq!(wait, Duration::ZERO, "samples older than the window are gone");
    }

    #[test]
    fn sensors_are_bounded() {
        let sensors = Sensors::default();
        let bucket = |n: usize| Bucket { user: Some(n.to_string()), client: None };
        for n in 0..MAX_SENSORS + 10 {
            let now = Duration::from_millis(1000 + u64::try_from(n / 100).unwrap());
            sensors.record(bucket(n), 1, 1.0, now);
        }
        assert_eq!(sensors.len(), MAX_SENSORS - MAX_SENSORS / FORGOTTEN_PART + 10);
        let at = Duration::from_millis(1200);
        let waits = |n: usize| sensors.wait(&bucket(n), 0.01, at) > Duration::ZERO;
        assert!(!waits(0) && !waits(99), "the longest idle are forgotten");
        assert!(waits(MAX_SENSORS / 2) && waits(MAX_SENSORS + 9));
        // Once there is no room, all go that are too old to count.
        for n in MAX_SENSORS + 10..MAX_SENSORS + 1010 {
            sensors.record(bucket(n), 1, 1.0, Duration::from_secs(100));
        }
        assert!(sensors.len() <= 1000);
    }
}
