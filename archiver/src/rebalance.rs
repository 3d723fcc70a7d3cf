//! What a service does when its group changes: gives back what it has, and begins with what it is given.
//!
//! Nothing of a share is begun with before the journal was looked through, since whoever had it before may have
//! left there what no chain has. A store that fails then only makes the share wait.

use std::time::{Duration, Instant};

use varve_kafka::client::{GroupEvent, GroupMember};

use crate::error::{Error, Result};
use crate::journal;
use crate::metrics::GroupState;
use crate::service::{Archiver, Service};
use crate::sharing::Share;

/// Between two looks into a journal that can't be read.
const AGAIN: Duration = Duration::from_secs(1);

/// A share that is not begun with yet.
pub(crate) struct Assigned {
    share: Share,
    not_before: Instant,
}

impl Archiver {
    pub(crate) async fn group_event(&self, service: &mut Service, event: Option<GroupEvent>) -> Result<()> {
        match event {
            Some(GroupEvent::Assigned { assignment, member_id, .. }) => {
                let share = Share::parse(&assignment, member_id);
                service.assigned = Some(Assigned { share, not_before: Instant::now() });
                self.begin_share(service).await;
            }
            Some(GroupEvent::Revoked(released)) => {
                service.released = Some(released);
                self.give_all_back(service);
            }
            Some(GroupEvent::Lost { reason }) => {
                tracing::warn!(reason, "the group went on without us");
                self.give_all_back(service);
            }
            Some(GroupEvent::Failed(error)) => return Err(error.into()),
            None => return Err(Error::Ended("the membership of the group")),
        }
        Ok(())
    }

    /// Begins with what was assigned, if anything was.
    pub(crate) async fn begin_share(&self, service: &mut Service) {
        let Some(mut assigned) = service.assigned.take() else { return };
        if assigned.not_before > Instant::now() {
            service.assigned = Some(assigned);
            return;
        }
        match journal::found(&self.archive).await {
            Ok((found, _)) => {
                service.share = assigned.share;
                self.progress.tally.group(GroupState::Joined);
                service.running.found = found;
                service.running.look_at = Instant::now();
            }
            Err(error) => {
                tracing::warn!(%error, "our share must wait: what others left in the journal can't be read");
                assigned.not_before = Instant::now() + AGAIN;
                service.assigned = Some(assigned);
            }
        }
    }

    fn give_all_back(&self, service: &mut Service) {
        self.progress.tally.group(GroupState::Joining);
        service.share = Share::Nothing;
        service.assigned = None;
        service.running.take(Vec::new(), &Share::Nothing);
    }
}

pub(crate) async fn next_event(group: &mut Option<GroupMember>) -> Option<GroupEvent> {
    match group {
        Some(group) => group.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use varve_archive::{Archive, HashAlgorithm};
    use varve_format::Id;
    use varve_store::{Fault, Faults, FaultyStore, Kind, MemoryStore, Rule, SharedStore, When};

    use super::*;
    use crate::config::Config;
    use crate::journal::Journal;

    fn assigned() -> Option<GroupEvent> {
        let (member_id, assignment) = ("me".to_owned(), Bytes::from_static(b"me\nother"));
        Some(GroupEvent::Assigned { generation_id: 1, member_id, assignment })
    }

    #[tokio::test]
    async fn a_share_waits_for_the_journal_and_outlives_a_store_that_fails() {
        let faults = Faults::new(1, Vec::new());
        let store: SharedStore =
            Arc::new(FaultyStore::new(Arc::new(MemoryStore::new()), Arc::clone(&faults)));
        let archive = Archive::create(store, "", Id([1; 16]), HashAlgorithm::Blake3, "test", 0);
        let archive = archive.await.unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/archive-minimal.yaml");
        let config = Config::load(&example, &[], &|_| None).unwrap();
        let archiver = Archiver::over(config, archive.clone()).unwrap();
        let progress = Arc::clone(archiver.progress());
        let journal = Journal::start(archive, "me".to_owned(), "test".to_owned(), progress);
        let discovery = archiver.discovery(&HashMap::new()).await.unwrap();
        let mut service = archiver.service(journal, discovery, None);
        service.share = Share::Nothing;
        let rule = |kind| Rule {
            operation: None,
            key_contains: "journal".to_owned(),
            when: When::Always,
            fault: Fault::ErrorBefore(kind),
        };
        faults.set_rules(vec![rule(Kind::Unavailable)]);
        archiver.group_event(&mut service, assigned()).await.unwrap();
        assert!(!faults.log().is_empty() && service.share == Share::Nothing);

        // Not at once, and not for as long as the store fails.
        let looks = faults.log().len();
        archiver.begin_share(&mut service).await;
        assert!(faults.log().len() == looks && service.share == Share::Nothing);
        let now = |service: &mut Service| service.assigned.as_mut().unwrap().not_before = Instant::now();
        now(&mut service);
        archiver.begin_share(&mut service).await;
        assert!(faults.log().len() > looks && service.share == Share::Nothing);

        faults.set_rules(Vec::new());
        now(&mut service);
        archiver.begin_share(&mut service).await;
        assert!(service.assigned.is_none() && matches!(service.share, Share::Of { .. }));

        // What is lost meanwhile is not begun with.
        faults.set_rules(vec![rule(Kind::Denied)]);
        archiver.group_event(&mut service, assigned()).await.unwrap();
        let lost = GroupEvent::Lost { reason: "a test".to_owned() };
        archiver.group_event(&mut service, Some(lost)).await.unwrap();
        faults.set_rules(Vec::new());
        archiver.begin_share(&mut service).await;
        assert!(service.assigned.is_none() && service.share == Share::Nothing);
    }
}
