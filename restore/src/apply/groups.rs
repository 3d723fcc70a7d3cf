//! Consumer groups: committed to the offsets of the plan, and read back.

use std::collections::BTreeMap;

use varve_kafka::client::Client;
use varve_kafka::client::admin::{CommittedOffset, GroupListing};

use super::journal::{Done, Journal};
use crate::error::Result;
use crate::plan::{Plan, PlannedGroup};

/// What became of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOutcome {
    pub group_id: String,
    pub offsets: usize,
    /// By an earlier run: it is left as it is now.
    pub was_committed: bool,
    /// Why it was not committed.
    pub refused: Option<String>,
}

/// Groups with members are left alone: those would go on from where they are.
pub(super) async fn commit(
    client: &Client,
    plan: &Plan,
    done: &Done,
    journal: &Journal,
) -> Result<Vec<GroupOutcome>> {
    // Those of the plan can be seen by who may commit to them.
    let listed = client.list_groups().await?.allowed()?;
    let listed: BTreeMap<String, GroupListing> =
        listed.into_iter().map(|g| (g.group_id.clone(), g)).collect();
    let mut outcomes = Vec::with_capacity(plan.groups.len());
    for group in &plan.groups {
        let outcome = |refused| GroupOutcome {
            group_id: group.group_id.clone(),
            offsets: group.offsets.len(),
            was_committed: done.groups.contains(&group.group_id),
            refused,
        };
        if done.groups.contains(&group.group_id) {
            outcomes.push(outcome(None));
            continue;
        }
        let state = listed.get(&group.group_id).map_or("Dead", |g| g.state.as_str());
        if !["Dead", "Empty", ""].contains(&state) {
            let why = format!("it has members (it is {state}): stop them, and apply the plan again");
            outcomes.push(outcome(Some(why)));
            continue;
        }
        let refused = match client.commit_offsets(&group.group_id, &wanted(group)).await {
            Ok(()) => differs(client, group).await?,
            Err(error) => Some(error.to_string()),
        };
        if refused.is_none() {
            journal.group(&group.group_id)?;
        }
        outcomes.push(outcome(refused));
    }
    Ok(outcomes)
}

fn wanted(group: &PlannedGroup) -> Vec<CommittedOffset> {
    let of = group.offsets.iter().map(|o| CommittedOffset {
        topic: o.topic.clone(),
        partition: o.partition,
        offset: o.offset,
        leader_epoch: o.leader_epoch,
        metadata: o.metadata.clone(),
    });
    of.collect()
}

/// What the group has now against the plan; `None` if it is the same.
pub(crate) async fn differs(client: &Client, group: &PlannedGroup) -> Result<Option<String>> {
    let found = client.committed_offsets(std::slice::from_ref(&group.group_id)).await?.whole()?;
    let found = found.first().map_or(&[] as &[CommittedOffset], |g| &g.offsets);
    let odd = group.offsets.iter().find_map(|o| {
        let committed = found.iter().find(|f| f.topic == o.topic && f.partition == o.partition);
        let offset = committed.map(|f| f.offset);
        (offset != Some(o.offset)).then_some((o, offset))
    });
    Ok(odd.map(|(o, offset)| {
        let offset = offset.map_or_else(|| "nothing".to_owned(), |n| n.to_string());
        format!("{}-{}: expected offset {}, found {offset}", o.topic, o.partition, o.offset)
    }))
}
