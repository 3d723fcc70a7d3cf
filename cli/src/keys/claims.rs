//! What a topic's objects say whose they are: whoever can write to the store can name any topic in a footer, and a
//! person who names a topic means all of its objects.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use varve_format::{Id, SegmentName};

use super::counted;
use super::needs::Needs;

/// Objects that are named of each topic that they claim to be of.
const NAMED: usize = 5;
/// Topics that are told apart.
const TOLD: usize = 20;

/// Whose an object says that it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    topic: String,
    topic_id: Id,
    cluster_id: String,
}

/// See the module. Of the objects in one topic's place.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    cluster_id: String,
    topic_id: Id,
    /// How many objects, and the first of them.
    told: BTreeMap<Claim, (u64, Vec<String>)>,
    others: u64,
}

impl Claims {
    pub(crate) fn new(cluster_id: &str, topic_id: Id) -> Self {
        Self { cluster_id: cluster_id.to_owned(), topic_id, told: BTreeMap::new(), others: 0 }
    }

    pub(crate) fn object(&mut self, needs: &Needs) {
        // A tier's name has the cluster; an archive is of one.
        if SegmentName::parse(&needs.object).is_ok_and(|name| name.cluster_id != self.cluster_id) {
            return;
        }
        let claim = Claim {
            topic: needs.topic.clone(),
            topic_id: needs.topic_id,
            cluster_id: needs.cluster_id.clone(),
        };
        if self.told.len() >= TOLD && !self.told.contains_key(&claim) {
            self.others += 1;
            return;
        }
        let (objects, named) = self.told.entry(claim).or_default();
        *objects += 1;
        if named.len() < NAMED {
            named.push(needs.object.clone());
        }
    }

    /// Whether all are of the topic by its id and cluster, and by one name: `name`, if it is known.
    ///
    /// # Errors
    /// What they say, with the objects that say so.
    pub(crate) fn check(&self, name: Option<&str>) -> Result<(), String> {
        let is_ours = |claim: &Claim| {
            claim.topic_id == self.topic_id
                && claim.cluster_id == self.cluster_id
                && name.is_none_or(|name| name == claim.topic)
        };
        if self.told.len() <= 1 && self.told.keys().all(is_ours) {
            return Ok(());
        }
        let Self { cluster_id, topic_id, .. } = self;
        let mut text = format!("objects of topic {topic_id} of cluster {cluster_id} say that they are of:");
        for (claim, (objects, named)) in &self.told {
            let Claim { topic, topic_id, cluster_id } = claim;
            let count = counted(*objects, "object");
            let _ = write!(text, "\n  {topic}, {topic_id} of cluster {cluster_id}: {count}");
            for object in named {
                let _ = write!(text, "\n    {object}");
            }
            if *objects > named.len() as u64 {
                text.push_str("\n    …");
            }
        }
        if self.others > 0 {
            let _ = write!(text, "\n  others: {}", counted(self.others, "object"));
        }
        Err(text)
    }
}

#[cfg(test)]
mod tests {
    use varve_format::segment_name;

    use super::*;

    const TOPIC: Id = Id([1; 16]);

    fn needs(cluster_id: &str, topic_id: Id, topic: &str, number: i64) -> Needs {
        let name = SegmentName {
            cluster_id: "c".into(),
            topic_id: TOPIC,
            partition: 0,
            base_offset: number,
            segment_id: Id([5; 16]),
        };
        Needs {
            object: segment_name(&name),
            bytes: 10,
            cluster_id: cluster_id.into(),
            topic_id,
            topic: topic.into(),
            encryption: None,
        }
    }

    fn claims(objects: &[Needs]) -> Claims {
        let mut claims = Claims::new("c", TOPIC);
        objects.iter().for_each(|needs| claims.object(needs));
        claims
    }

    #[test]
    fn all_objects_are_of_the_topic_or_are_named() {
        let ours = || needs("c", TOPIC, "payments", 1);
        assert_eq!(claims(&[]).check(Some("payments")), Ok(()));
        assert_eq!(claims(&[ours(), ours()]).check(Some("payments")), Ok(()));
        assert_eq!(claims(&[ours(), ours()]).check(None), Ok(()));
        assert!(claims(&[ours()]).check(Some("clicks")).is_err());
        let strange = [
            needs("c", TOPIC, "clicks", 0),
            needs("other", TOPIC, "payments", 0),
            needs("c", Id([2; 16]), "payments", 0),
        ];
        for strange in strange {
            let why = claims(&[strange, ours()]).check(None).unwrap_err();
            assert!(why.contains(&needs("c", TOPIC, "", 0).object) && why.contains(&ours().object), "{why}");
        }
        // Of another cluster's topic of this id nothing is asked.
        let elsewhere =
            Needs { object: ours().object.replacen('c', "d", 1), ..needs("d", TOPIC, "clicks", 0) };
        assert_eq!(claims(&[elsewhere, ours()]).check(Some("payments")), Ok(()));
    }

    #[test]
    fn of_many_claims_some_are_told() {
        let many: Vec<_> = (0..100).map(|n| needs("c", TOPIC, &format!("t{}", n / 2), n)).collect();
        let why = claims(&many).check(None).unwrap_err();
        assert!(why.lines().count() < TOLD * (NAMED + 1) + 3 && why.contains("others: 60 objects"), "{why}");
    }
}
