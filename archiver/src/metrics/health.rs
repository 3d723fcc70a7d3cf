//! Whether the process lives, and whether it can work: decided from what was seen, and nothing asked.
//!
//! Healthy is for whoever restarts it: only what a restart may cure counts, so an unreachable broker or store does
//! not. Ready is for whoever watches it: what it needs is there.

use std::time::{Duration, Instant};

use super::tally::{GroupState, Inner, Look, Task};

/// Between two looks at the cluster, and how long one may take.
pub(super) const CLUSTER_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the store, and how long one may take.
pub(super) const STORE_EVERY: Duration = Duration::from_secs(15);

/// What is wrong; nothing if all is well.
pub(super) fn unhealthy(inner: &Inner, patience: Duration, now: Instant) -> Vec<String> {
    let silent = inner.beats.iter().filter(|(_, at)| now.duration_since(**at) > patience);
    let line = |(task, at): (&Task, &Instant)| {
        let name = match task {
            Task::Service => "the service".to_owned(),
            Task::Worker(node_id) => format!("the worker of broker {node_id}"),
        };
        format!("{name} has not been heard of for {} s", now.duration_since(*at).as_secs())
    };
    silent.map(line).collect()
}

/// What is missing; nothing if all is there.
pub(super) fn not_ready(inner: &Inner, now: Instant) -> Vec<String> {
    let mut missing = Vec::new();
    let mut need = |name: &str, look: &Look, every: Duration| match (&look.at, &look.problem) {
        (_, Some(problem)) => missing.push(format!("{name}: {problem}")),
        (None, None) => missing.push(format!("{name}: not asked yet")),
        (Some(at), None) if now.duration_since(*at) > every * 3 => {
            missing.push(format!("{name}: last heard of {} s ago", now.duration_since(*at).as_secs()));
        }
        (Some(_), None) => {}
    };
    need("store", &inner.store, STORE_EVERY);
    need("cluster", &inner.cluster, CLUSTER_EVERY);
    if inner.group == GroupState::Joining {
        missing.push("group: not joined".to_owned());
    }
    if inner.stopping {
        missing.push("stopping".to_owned());
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_worker_is_ill_and_a_dead_cluster_is_not() {
        let (now, patience) = (Instant::now(), Duration::from_secs(60));
        let mut inner = Inner::default();
        inner.beats.insert(Task::Service, now);
        inner.beats.insert(Task::Worker(3), now);
        inner.cluster = Look { at: Some(now), problem: Some("connection refused".to_owned()) };
        inner.store = Look { at: Some(now), problem: None };
        assert_eq!(unhealthy(&inner, patience, now), Vec::<String>::new());
        assert_eq!(not_ready(&inner, now), ["cluster: connection refused"]);
        inner.beats.insert(Task::Service, now + patience);
        let later = now + patience + Duration::from_secs(1);
        assert_eq!(
            unhealthy(&inner, patience, later),
            ["the worker of broker 3 has not been heard of for 61 s"]
        );
        assert_eq!(not_ready(&inner, later).len(), 2, "what was heard long ago counts no more");
    }

    #[test]
    fn all_that_is_needed() {
        let now = Instant::now();
        let mut inner = Inner::default();
        assert_eq!(not_ready(&inner, now), ["store: not asked yet", "cluster: not asked yet"]);
        let fine = Look { at: Some(now), problem: None };
        (inner.store, inner.cluster) = (fine.clone(), fine);
        assert_eq!(not_ready(&inner, now), Vec::<String>::new());
        inner.group = GroupState::Joining;
        assert_eq!(not_ready(&inner, now), ["group: not joined"]);
        (inner.group, inner.stopping) = (GroupState::Joined, true);
        assert_eq!(not_ready(&inner, now), ["stopping"]);
    }
}
