//! Who of several archivers takes which partitions: Kafka's coordinator says who is there, and everybody
//! computes the rest. A member that comes or goes moves no partitions but its own.
//!
//! Two may work on one partition while they don't agree yet: what is committed stands two writers.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use varve_archive::HashAlgorithm;
use varve_kafka::client::{Client, GroupMember, JoinedMember, Membership};

use crate::config::GroupConfig;
use crate::tail::Key;

const PROTOCOL_TYPE: &str = "varve";
const PROTOCOL: &str = "rendezvous-1";

/// Which partitions are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Nothing,
    Of { members: Vec<String>, me: String },
}

impl Share {
    /// As it was assigned.
    pub(crate) fn parse(assignment: &[u8], me: String) -> Self {
        let text = String::from_utf8_lossy(assignment);
        let members: Vec<String> = text.lines().map(str::to_owned).collect();
        if members.contains(&me) { Self::Of { members, me } } else { Self::Nothing }
    }

    pub(crate) fn has(&self, key: Key) -> bool {
        let (members, me) = match self {
            Share::All => return true,
            Share::Nothing => return false,
            Share::Of { members, me } => (members, me),
        };
        let weight =
            |member: &String| HashAlgorithm::Blake3.of(&[&key.0.0, &key.1.to_be_bytes(), member.as_bytes()]);
        members.iter().max_by_key(|member| weight(member)) == Some(me)
    }
}

/// Joins the group. Every member gets the list of all.
pub(crate) fn join(client: &Client, config: &GroupConfig) -> GroupMember {
    let assignor = Arc::new(|members: &[JoinedMember]| {
        let all: Vec<&str> = members.iter().map(|m| m.member_id.as_str()).collect();
        let list = Bytes::from(all.join("\n"));
        members.iter().map(|m| (m.member_id.clone(), list.clone())).collect::<BTreeMap<_, _>>()
    });
    let mut membership = Membership::new(&config.id, PROTOCOL_TYPE, PROTOCOL, Bytes::new());
    membership.session_timeout = config.session_timeout;
    membership.heartbeat_interval = config.session_timeout / 10;
    GroupMember::join(client, membership, assignor)
}

#[cfg(test)]
mod tests {
    use varve_format::Id;

    use super::*;

    fn share(members: &[&str], me: &str) -> Share {
        Share::parse(members.join("\n").as_bytes(), me.to_owned())
    }

    #[test]
    fn each_partition_is_one_members_and_few_move() {
        let keys: Vec<Key> = (0..3000).map(|n| (Id([7; 16]), n)).collect();
        let owner = |members: &[&str], key| {
            let owners: Vec<_> = members.iter().filter(|me| share(members, me).has(key)).copied().collect();
            assert_eq!(owners.len(), 1, "{key:?}");
            owners[0].to_owned()
        };
        let of_three: Vec<_> = keys.iter().map(|key| owner(&["a", "b", "c"], *key)).collect();
        for member in ["a", "b", "c"] {
            let count = of_three.iter().filter(|owner| *owner == member).count();
            assert!((850..1150).contains(&count), "{member}: {count}");
        }
        for (key, before) in keys.iter().zip(&of_three) {
            let after = owner(&["a", "b"], *key);
            assert!(before == "c" || *before == after, "{key:?} moved without need");
        }
        assert_eq!(share(&["a"], "x"), Share::Nothing);
        assert!(Share::All.has(keys[0]) && !Share::Nothing.has(keys[0]));
    }
}
