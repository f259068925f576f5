//! A node that has just started again takes part in no election.
//!
//! A leader reads without asking anybody while its lease lasts: for the longest election time-out
//! after a majority has heard from it, nobody may elect another one. Who was killed and started
//! again within that time has forgotten that it heard from a leader, and would vote at once. So it
//! waits until every lease that it may have helped to is over.

use std::time::Duration;

use tokio::time::Instant;

/// Until when a node is silent, for one group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence(Option<Instant>);

impl Silence {
    /// For a group that voted before this start, at `started`.
    pub(crate) fn after_restart(started: Instant, lease: Duration) -> Self {
        Self(Some(started + lease))
    }

    /// For a group that is new here.
    pub(crate) const fn none() -> Self {
        Self(None)
    }

    /// Resolves when the node may ask for votes and give its own.
    pub(crate) async fn over(self) {
        if let Some(until) = self.0 {
            tokio::time::sleep_until(until).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_as_long_as_a_lease_and_only_after_a_restart() {
        let (started, lease) = (Instant::now(), Duration::from_millis(700));
        Silence::none().over().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        let silence = Silence::after_restart(started, lease);
        silence.over().await;
        assert!(started.elapsed() >= lease);
        let after = started.elapsed();
        silence.over().await;
        assert_eq!(started.elapsed(), after);
    }
}
