//! What is asked for by name and is not there: by a slip of the pen too much would be restored, or too little.

use super::document::Refusal;
use crate::select::Selection;
use crate::source::Source;

const LISTED: &str = "check the name: varve ls lists the topics that there are";

/// Patterns with a `*` may match nothing.
pub(super) fn refusals(source: &Source, selection: &Selection) -> Vec<Refusal> {
    let mut found = Vec::new();
    let mut refuse = |what: String, todo: &str| found.push(Refusal { what, todo: todo.to_owned() });
    for (option, patterns) in [("--topics", &selection.topics), ("--without", &selection.without)] {
        for name in patterns.names().filter(|name| !source.names.contains(*name)) {
            refuse(format!("{option} {name}: the archive has no such topic"), LISTED);
        }
    }
    let counted = |name: &str| source.topics.iter().find(|t| t.name == name).map(|t| t.partition_count());
    for (topic, target) in selection.renamed.iter().filter(|(topic, _)| counted(topic).is_none()) {
        refuse(format!("--rename {topic}={target}: no topic {topic} is restored"), LISTED);
    }
    let partitions =
        selection.partitions.iter().flat_map(|(topic, all)| all.iter().map(move |p| (topic, *p)));
    let partitions = partitions.map(|named| ("--partitions", named));
    let offsets = selection.offsets.keys().map(|(topic, partition)| ("--offsets", (topic, *partition)));
    for (option, (topic, partition)) in partitions.chain(offsets) {
        match counted(topic) {
            None => refuse(format!("{option} {topic}: no topic {topic} is restored"), LISTED),
            Some(count) if usize::try_from(partition).map_or(true, |number| number >= count) => {
                let what =
                    format!("{option} {topic}: it has {count} partitions, and none of number {partition}");
                refuse(what, "partitions are counted from 0");
            }
            Some(_) => {}
        }
    }
    let recalled =
        |name: &str| source.topics.iter().any(|t| t.recalled.iter().any(|(g, _)| g.group_id == name));
    let known = |name: &str| recalled(name) || source.state.groups.iter().any(|g| g.group_id == name);
    for name in selection.groups.names().filter(|name| !known(name)) {
        let what = format!("--groups {name}: the archive has no such group");
        refuse(what, "check the name; varve snapshots shows what a snapshot holds");
    }
    found
}
