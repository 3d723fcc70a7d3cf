//! When a service makes snapshots: each interval, and at its end; of the archive alone where the cluster is away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock;
use crate::discovery::Wanted;
use crate::error::Result;
use crate::metrics::FailureKind;
use crate::recovery_point::Pending;
use crate::service::{Archiver, GOODBYE, Service, WRITER};
use crate::sharing::Share;

const LAST_LOOK: Duration = Duration::from_secs(5);

impl Archiver {
    pub(crate) async fn snapshot_step(&self, service: &mut Service) -> Result<()> {
        match service.pending.take() {
            Some(pending) if self.is_reached(&pending) || pending.until <= Instant::now() => {
                match self.next_snapshot_of(service, pending).await {
                    Err(error) if error.is_away() => self.without_cluster(service, &error).await?,
                    done => done?,
                }
            }
            pending @ Some(_) => service.pending = pending,
            None if service.snapshot_at.is_some_and(|at| at <= Instant::now()) => {
                service.snapshot_at = self.next_snapshot();
                let is_idle = service.running.wanted.is_empty() && service.share != Share::All;
                if is_idle && service.discovery.departed.is_empty() && !service.is_away {
                    return Ok(());
                }
                let wanted: Vec<Wanted> = service.running.wanted.values().cloned().collect();
                match self.begin_snapshot(&wanted, &service.discovery.unread).await {
                    Ok(pending) => service.pending = Some(pending),
                    Err(error) if error.is_away() => {
                        self.progress.tally.error(FailureKind::of(&error));
                        self.without_cluster(service, &error).await?;
                    }
                    Err(error) => return Err(error),
                }
                service.running.flush();
            }
            None => {}
        }
        Ok(())
    }

    async fn next_snapshot_of(&self, service: &mut Service, pending: Pending) -> Result<()> {
        let due = match service.share {
            Share::Nothing => BTreeMap::new(),
            _ => service.discovery.departed.due(),
        };
        let reached = self.progress.reached();
        let gone = self.departed(&due, &service.share).await?;
        self.finish_snapshot(pending, gone, service.discovery.cluster_id()).await?;
        service.reached = Some(reached);
        for topic_id in service.discovery.departed.told(&due, clock::now_ms()) {
            self.progress.forget_topic(topic_id);
        }
        Ok(())
    }

    pub(crate) fn next_snapshot(&self) -> Option<Instant> {
        let interval = self.config.snapshots.interval;
        (!interval.is_zero()).then(|| Instant::now() + interval)
    }

    pub(crate) async fn last_snapshot(
        &self,
        service: &mut Service,
        share: &Share,
        wanted: &[Wanted],
    ) -> Result<()> {
        let is_away = service.is_away;
        if !is_away {
            // A topic may have gone since the last look.
            let look = service.discovery.look(&self.archive, WRITER);
            if let Ok(Err(error)) = tokio::time::timeout(LAST_LOOK, look).await {
                tracing::warn!(%error, "a last look at the cluster's topics");
            }
        }
        let gone = service.discovery.departed.due();
        if wanted.is_empty() && gone.is_empty() && !is_away {
            return Ok(());
        }
        let of_cluster = async {
            let pending = self.begin_snapshot(wanted, &service.discovery.unread).await?;
            let gone = self.departed(&gone, share).await?;
            self.finish_snapshot(pending, gone, service.discovery.cluster_id()).await
        };
        let limit = if is_away { Duration::ZERO } else { GOODBYE };
        let why = match tokio::time::timeout(limit, of_cluster).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if !error.is_away() => return Err(error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the cluster or the store does not answer".to_owned(),
        };
        self.last_without_cluster(service, &why).await
    }
}
