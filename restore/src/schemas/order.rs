//! The order in which versions can be registered.

use std::collections::{BTreeMap, BTreeSet};

use varve_cluster::SchemaVersion;

use super::same::referred;

/// Behind all that it refers to, and behind the versions of its subject before it; else by id, which is about the order
/// in which they were once registered. What refers to itself in a circle, which no registry takes, comes last.
pub(super) fn ordered<'a>(versions: &[(&'a str, &'a SchemaVersion)]) -> Vec<(&'a str, &'a SchemaVersion)> {
    let places: BTreeMap<(&str, i32), usize> =
        versions.iter().enumerate().map(|(n, (subject, v))| ((*subject, v.version), n)).collect();
    let mut waits_for: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); versions.len()];
    let mut waited_by: Vec<BTreeSet<usize>> = waits_for.clone();
    for (place, (subject, version)) in versions.iter().enumerate() {
        let before = places.range((*subject, i32::MIN)..(*subject, version.version)).next_back();
        let before = before.map(|(_, place)| *place);
        let referred = version.references.iter().filter_map(|reference| {
            places.get(&(referred(subject, reference).as_str(), reference.version)).copied()
        });
        for first in referred.chain(before).collect::<Vec<_>>() {
            if let (Some(waits), Some(waited)) = (waits_for.get_mut(place), waited_by.get_mut(first)) {
                waits.insert(first);
                waited.insert(place);
            }
        }
    }
    let rank = |place: usize| (versions.get(place).map_or(0, |(_, v)| v.id), place);
    let free = waits_for.iter().enumerate().filter(|(_, waits)| waits.is_empty());
    let mut ready: BTreeSet<(i64, usize)> = free.map(|(place, _)| rank(place)).collect();
    let mut order = Vec::with_capacity(versions.len());
    while let Some((_, place)) = ready.pop_first() {
        order.push(place);
        for next in waited_by.get(place).into_iter().flatten() {
            let Some(waits) = waits_for.get_mut(*next) else { continue };
            if waits.remove(&place) && waits.is_empty() {
                ready.insert(rank(*next));
            }
        }
    }
    let done: BTreeSet<usize> = order.iter().copied().collect();
    order.extend((0..versions.len()).filter(|place| !done.contains(place)));
    order.into_iter().filter_map(|place| versions.get(place).copied()).collect()
}

#[cfg(test)]
mod tests {
    use varve_cluster::SchemaReference;

    use super::*;

    fn version(version: i32, id: i64, references: &[(&str, i32)]) -> SchemaVersion {
        SchemaVersion {
            version,
            id,
            schema_type: "AVRO".to_owned(),
            deleted: false,
            schema: String::new(),
            references: references
                .iter()
                .map(|(subject, version)| SchemaReference {
                    name: "n".to_owned(),
                    subject: (*subject).to_owned(),
                    version: *version,
                })
                .collect(),
            more: None,
        }
    }

    #[test]
    fn what_is_referred_to_comes_first() {
        let all = [
            ("a", version(1, 9, &[("c", 2), ("elsewhere", 1)])),
            ("a", version(2, 1, &[])),
            ("b", version(1, 3, &[("a", 1)])),
            ("c", version(1, 5, &[])),
            ("c", version(2, 4, &[])),
        ];
        let given: Vec<(&str, &SchemaVersion)> = all.iter().map(|(s, v)| (*s, v)).collect();
        let order: Vec<(&str, i32)> = ordered(&given).into_iter().map(|(s, v)| (s, v.version)).collect();
        assert_eq!(order, [("c", 1), ("c", 2), ("a", 1), ("a", 2), ("b", 1)]);
        let circle = [("a", version(1, 1, &[("b", 1)])), ("b", version(1, 2, &[("a", 1)]))];
        let given: Vec<(&str, &SchemaVersion)> = circle.iter().map(|(s, v)| (*s, v)).collect();
        assert_eq!(ordered(&given).len(), 2);
    }
}
