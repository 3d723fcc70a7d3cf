//! What must hold of the store, whatever happened. Each is a predicate of its own, named in the failure.

use std::collections::HashMap;

use varve_archive::record::branch::{BranchRecord, EpochEntry, epoch_before};
use varve_archive::{
    Archive, Depth, FindingKind, ObjectHead, Place, Snapshot, VerifyOptions, continuation, lineage, names,
};
use varve_format::Id;
use varve_store::{GetRange, Key, MemoryStore, Store};

use crate::archiver::entries;
use crate::turns::finish;
use crate::world::{Batch, Leader, Log, World};

type Outcome<T = ()> = Result<T, String>;

/// An object of a chain, as a reader has it.
#[derive(Clone, Debug)]
struct Object {
    first: i64,
    end: i64,
    gap: Option<String>,
    batches: Vec<Batch>,
    epochs: Vec<EpochEntry>,
}

/// One stretch of offsets without a gap in knowledge: what one leader must have had.
type Run = Vec<(i64, i64, Vec<Batch>)>;

pub fn all(store: &MemoryStore, archive: &Archive, world: &World, snapshots: &[Snapshot]) -> Outcome {
    let chains = chains(store, archive, world)?;
    for log in &world.logs {
        let branches = finish(archive.partition(log.topic_id, log.partition).branches(0))
            .map_err(|e| format!("branches_are_dense: {e}"))?;
        let records: Vec<BranchRecord> = branches.into_iter().map(|(r, _)| r).collect();
        for branch in 0..=records.len() as u32 {
            let objects = read_lineage(log, &records, branch, &chains)?;
            one_history(log, branch, &objects)?;
            if branch == records.len() as u32 && !log.deleted {
                let start = records.last().map_or(0, |r| r.start_offset);
                nothing_is_lost(log, branch, start, &objects)?;
            }
            let objects = with_journal(archive, log, branch, &objects, &records)?;
            one_history(log, branch, &objects).map_err(|e| format!("with the journal, {e}"))?;
        }
    }
    snapshots_do_not_fork(snapshots)?;
    for snapshot in snapshots {
        verifies_for_ever(archive, snapshot)?;
    }
    Ok(())
}

/// No hole, no offset twice: each name is the end of the object before.
fn chains(
    store: &MemoryStore,
    archive: &Archive,
    world: &World,
) -> Outcome<HashMap<(Id, i32, u32), Vec<Object>>> {
    let mut chains: HashMap<(Id, i32, u32), Vec<Object>> = HashMap::new();
    for log in &world.logs {
        for branch in 0..64 {
            let prefix = names::chain_prefix(log.topic_id, log.partition, branch);
            let page = finish(store.list(&prefix, None, usize::MAX)).map_err(|e| e.to_string())?;
            let start = match branch {
                0 => 0,
                _ => match finish(archive.partition(log.topic_id, log.partition).branch(branch)) {
                    Ok(Some((record, _))) => record.start_offset,
                    _ if page.objects.is_empty() => break,
                    other => return Err(format!("a_branch_has_a_record: {branch}: {other:?}")),
                },
            };
            let mut end = start;
            let mut chain = Vec::new();
            for meta in page.objects {
                let object = read(store, archive, log, &meta.key)?;
                if object.first != end {
                    return Err(format!(
                        "the_chain_has_no_hole: {} {} branch {branch} ends at {end}, then {}",
                        log.topic_id, log.partition, meta.key
                    ));
                }
                end = object.end;
                chain.push(object);
            }
            chains.insert((log.topic_id, log.partition, branch), chain);
        }
    }
    Ok(chains)
}

fn read(store: &MemoryStore, archive: &Archive, log: &Log, key: &Key) -> Outcome<Object> {
    let name = key.as_str();
    let digits = name.rsplit('/').next().and_then(|f| f.strip_suffix(".varve")).unwrap_or_default();
    let first = digits.parse().map_err(|_| format!("names_are_known: {name}"))?;
    let got = finish(store.get(key, GetRange::Full)).map_err(|e| e.to_string())?;
    let bytes = finish(got.bytes()).map_err(|e| e.to_string())?;
    parse(archive, log, first, name, &bytes)
}

fn parse(archive: &Archive, log: &Log, first: i64, name: &str, bytes: &[u8]) -> Outcome<Object> {
    let place = Place { topic_id: log.topic_id, partition: log.partition, first_offset: first };
    let head = ObjectHead::read(archive.hash(), place, name, bytes, bytes.len() as u64)
        .map_err(|e| format!("objects_are_what_they_are_named: {e}"))?;
    let log_bytes = &bytes[..head.footer.log_bytes as usize];
    let gap =
        head.gap.then(|| String::from_utf8_lossy(&bytes[..head.trailer.footer_offset as usize]).into_owned());
    Ok(Object {
        first,
        end: head.end_offset(),
        gap,
        batches: Batch::parse(log_bytes),
        epochs: head.epochs().iter().copied().map(EpochEntry::from).collect(),
    })
}

fn read_lineage(
    log: &Log,
    records: &[BranchRecord],
    branch: u32,
    chains: &HashMap<(Id, i32, u32), Vec<Object>>,
) -> Outcome<Vec<Object>> {
    let record = |n: u32| records.iter().find(|r| r.branch == n);
    let mut objects = Vec::new();
    let mut end = 0;
    for (index, stretch) in lineage(branch, record).into_iter().enumerate() {
        let alone = record(stretch.branch).is_some_and(|r| r.parent.is_none());
        if index == 0 && alone {
            end = stretch.start_offset;
        }
        if stretch.start_offset != end {
            return Err(format!(
                "a_branch_starts_within_its_parent: branch {} starts at {}, its parent's lineage ends at {end}",
                stretch.branch, stretch.start_offset
            ));
        }
        let cut = stretch.end_offset.unwrap_or(i64::MAX);
        for object in chains.get(&(log.topic_id, log.partition, stretch.branch)).into_iter().flatten() {
            if object.first < cut {
                let mut object = object.clone();
                object.end = object.end.min(cut);
                end = object.end;
                objects.push(object);
            }
        }
    }
    Ok(objects)
}

/// The lineage, then what the journal has of its branch.
fn with_journal(
    archive: &Archive,
    log: &Log,
    branch: u32,
    objects: &[Object],
    records: &[BranchRecord],
) -> Outcome<Vec<Object>> {
    let mut objects = objects.to_vec();
    let record = branch.checked_sub(1).and_then(|i| records.get(i as usize));
    let start = record.map_or(0, |r| r.start_offset);
    let end = objects.last().map_or(start, |o| o.end);
    let epochs = match (objects.last(), record) {
        (Some(last), _) if last.first >= start => last.epochs.clone(),
        (_, Some(record)) => record.leader_epochs.clone(),
        _ => Vec::new(),
    };
    let found = finish(entries(archive, log.topic_id, log.partition, branch)).map_err(|e| e.to_string())?;
    for entry in continuation(&found, end, epoch_before(&epochs, end)) {
        let name = names::bundle(&entry.archiver, entry.sequence);
        let key = Key::new(name.as_str()).map_err(|e| e.to_string())?;
        let range = GetRange::Bounded { start: entry.position, end: entry.position + entry.bytes };
        // As readers do: of a bundle that was put on top of a hidden one, either is true.
        let got = finish(archive.shelf().store().get(&key, range)).map_err(|e| e.to_string())?;
        let bytes = finish(got.bytes()).map_err(|e| e.to_string())?;
        let mut object = parse(archive, log, entry.first_offset, &name, &bytes)?;
        object.first = objects.last().map_or(start, |o| o.end);
        objects.push(object);
    }
    Ok(objects)
}

/// Between two places where the log's start hid what was before, all of a lineage is what one leader had
/// committed; so no two histories are mixed.
fn one_history(log: &Log, branch: u32, objects: &[Object]) -> Outcome {
    let mut runs: Vec<Run> = vec![Vec::new()];
    for object in objects {
        match &object.gap {
            Some(record) if record.contains("log-start") => runs.push(Vec::new()),
            _ => runs.last_mut().expect("one").push((object.first, object.end, object.batches.clone())),
        }
    }
    for run in runs.iter().filter(|run| !run.is_empty()) {
        if !told(log, run) {
            let shown: Vec<_> = run.iter().map(|(f, e, b)| format!("{f}..{e} {b:?}")).collect();
            return Err(format!(
                "a_branch_is_one_leaders_history: {} {} branch {branch}: {}",
                log.topic_id,
                log.partition,
                shown.join("; ")
            ));
        }
    }
    Ok(())
}

/// By one leader, or, where a log once began (and so what is before can't be compared), by one before and another
/// behind.
fn told(log: &Log, run: &[(i64, i64, Vec<Batch>)]) -> bool {
    let whole = log.leaders.iter().any(|leader| had(leader, run));
    let parts = |at: &usize| {
        log.starts.contains(&run[*at].0)
            && log.leaders.iter().any(|leader| had(leader, &run[..*at]))
            && told(log, &run[*at..])
    };
    whole || (1..run.len()).any(|at| parts(&at))
}

fn had(leader: &Leader, run: &[(i64, i64, Vec<Batch>)]) -> bool {
    run.iter().all(|(first, end, batches)| {
        let there = |b: &&Batch| b.end > *first && b.base < *end;
        let theirs: Vec<Batch> = leader.batches.iter().filter(there).copied().collect();
        let ours: Vec<Batch> = batches.iter().filter(there).copied().collect();
        *end <= leader.high_watermark && theirs == ours
    })
}

/// Once all is quiet and one archiver has caught up, the current branch has all that is committed.
fn nothing_is_lost(log: &Log, branch: u32, start: i64, objects: &[Object]) -> Outcome {
    let leader = log.current();
    let end = objects.last().map_or(start, |o| o.end);
    if end != leader.high_watermark.max(leader.start) {
        return Err(format!(
            "nothing_is_lost: {} {} branch {branch} ends at {end}, the high watermark is {}",
            log.topic_id, log.partition, leader.high_watermark
        ));
    }
    // Where a log's start went back, what was said to be gone is not archived again: what is below the lineage's
    // beginning, or below a log start that was seen: at a gap's end, or just where the chain stood.
    let told = |o: &&Object| o.gap.as_ref().is_some_and(|g| g.contains("log-start"));
    let begins = objects.first().map_or(start, |o| o.first);
    let stood = objects.iter().map(|o| o.first).filter(|first| log.starts.contains(first));
    let seen_start = objects.iter().filter(told).map(|o| o.end).chain(stood).fold(begins, i64::max);
    for batch in leader.batches.iter().filter(|b| b.end > leader.start && b.end <= leader.high_watermark) {
        if batch.base >= seen_start && !objects.iter().any(|o| o.batches.contains(batch)) {
            return Err(format!("nothing_is_lost: {batch:?} in branch {branch} of {}", log.topic_id));
        }
    }
    Ok(())
}

fn snapshots_do_not_fork(snapshots: &[Snapshot]) -> Outcome {
    let mut by_sequence: HashMap<u64, &Snapshot> = HashMap::new();
    for snapshot in snapshots {
        let other = by_sequence.insert(snapshot.record.sequence, snapshot);
        if other.is_some_and(|other| other.hash != snapshot.hash) {
            return Err(format!("snapshots_do_not_fork: {}", snapshot.record.sequence));
        }
    }
    Ok(())
}

fn verifies_for_ever(archive: &Archive, snapshot: &Snapshot) -> Outcome {
    let options = VerifyOptions { depth: Depth::Contents, ..VerifyOptions::default() };
    let report = finish(archive.verify(snapshot.record.sequence, &options, &|_| {}))
        .map_err(|e| format!("any_snapshot_verifies_for_ever: {e}"))?;
    // What was put on top of objects is told; that is no harm.
    if report.findings.iter().all(|finding| finding.kind != FindingKind::Broken) {
        return Ok(());
    }
    Err(format!("any_snapshot_verifies_for_ever: {}: {:?}", snapshot.record.sequence, report.findings))
}
