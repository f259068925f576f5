//! `wait_for_active_shards`: how many copies of a shard a request waits for.
//!
//! A write is acknowledged by a majority of the nodes in any case; this is about how many of the
//! copies that an index asks for are there to begin with.

use std::time::Duration;

use index::EsError;
use index::limits::WRITE_TIMEOUT;
use index::model::IndexMeta;
use index::settings::parse_time_ms;
use tokio::sync::Semaphore;

use crate::app::App;
use crate::limits::{MAX_REQUESTS, MAX_WAIT};
use crate::params::Params;

const NAME: &str = "wait_for_active_shards";

/// Requests that may wait for copies: they hold turns that others need.
static WAITING: Semaphore = Semaphore::const_new(MAX_REQUESTS / 4);

/// Copies of each shard that a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every copy that the index asks for.
    All,
    /// So many.
    Count(u32),
}

impl Wanted {
    /// Reads what a request says, else what the index says, else one copy.
    pub(crate) fn of(params: &Params, setting: Option<&str>) -> Result<Self, EsError> {
        match params.get(NAME).or(setting).unwrap_or("1") {
            "all" => Ok(Self::All),
            text => match text.parse::<i64>() {
                Ok(count) if count < 0 => {
                    Err(EsError::illegal("shard count cannot be a negative value"))
                }
                Ok(count) => Ok(Self::Count(u32::try_from(count).unwrap_or(u32::MAX))),
                Err(_) => Err(EsError::illegal(format!("cannot parse ActiveShardCount[{text}]"))),
            },
        }
    }

    fn copies(self, meta: &IndexMeta) -> u32 {
        match self {
            Self::All => meta.row.replicas.saturating_add(1),
            Self::Count(count) => count,
        }
    }

    fn text(self) -> String {
        match self {
            Self::All => "ALL".to_owned(),
            Self::Count(count) => count.to_string(),
        }
    }
}

/// Reads `timeout`.
pub(crate) fn timeout_of(params: &Params, default: Duration) -> Result<Duration, EsError> {
    let Some(text) = params.get("timeout") else { return Ok(default) };
    let ms = parse_time_ms(text).ok_or_else(|| {
        EsError::illegal(format!(
            "failed to parse setting [timeout] with value [{text}] as a time value: unit is \
             missing or unrecognized"
        ))
    })?;
    Ok(Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(MAX_WAIT))
}

impl App {
    /// Waits until an index has the copies that a request wants. Where many wait already, those
    /// that come then fail at once.
    pub(crate) async fn wait_active(
        &self,
        meta: &IndexMeta,
        wanted: Wanted,
        timeout: Duration,
    ) -> Result<(), EsError> {
        let needed = wanted.copies(meta);
        if needed <= 1 {
            // This node is one.
            return Ok(());
        }
        let deadline = self.env.clock.monotonic() + timeout;
        let mut place = None;
        loop {
            let active = self.service.active_copies(meta);
            if active >= needed {
                return Ok(());
            }
            if place.is_none() {
                place = WAITING.try_acquire().ok();
            }
            if place.is_none() || self.env.clock.monotonic() >= deadline {
                return Err(EsError::unavailable(format!(
                    "[{}][0] Not enough active copies to meet shard count of [{}] (have {active}, \
                     needed {needed}). Timeout: [{}ms]",
                    meta.name(),
                    wanted.text(),
                    timeout.as_millis()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// As [`Self::wait_active`], for a write with these parameters; returns how long it may then
    /// wait for the leaders of its shards.
    pub(crate) async fn wait_writable(
        &self,
        meta: &IndexMeta,
        params: &Params,
    ) -> Result<Duration, EsError> {
        let setting = meta.setting("index.write.wait_for_active_shards");
        let wanted = Wanted::of(params, setting)?;
        let timeout = timeout_of(params, Duration::from_secs(60))?;
        self.wait_active(meta, wanted, timeout).await?;
        timeout_of(params, WRITE_TIMEOUT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_copies_are_read() {
        let wanted = |query: &str, setting: Option<&str>| {
            Wanted::of(&Params::parse(query).unwrap(), setting).map_err(|error| error.reason)
        };
        assert_eq!(wanted("", None), Ok(Wanted::Count(1)));
        assert_eq!(wanted("", Some("2")), Ok(Wanted::Count(2)));
        assert_eq!(wanted("wait_for_active_shards=all", Some("2")), Ok(Wanted::All));
        assert_eq!(wanted("wait_for_active_shards=0", None), Ok(Wanted::Count(0)));
        for (query, reason) in [
            ("wait_for_active_shards=-1", "shard count cannot be a negative value"),
            ("wait_for_active_shards=some", "cannot parse ActiveShardCount[some]"),
        ] {
            assert_eq!(wanted(query, None), Err(reason.to_owned()));
        }
    }

    #[test]
    fn time_outs_are_read_and_bounded() {
        let read =
            |query: &str| timeout_of(&Params::parse(query).unwrap(), Duration::from_secs(60)).ok();
        assert_eq!(read(""), Some(Duration::from_secs(60)));
        assert_eq!(read("timeout=2s"), Some(Duration::from_secs(2)));
        assert_eq!(read("timeout=9d"), Some(MAX_WAIT));
        assert_eq!(read("timeout=2"), None);
    }
}
