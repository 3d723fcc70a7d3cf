//! What a snapshot promised is what is read by it later, whatever became of the journal.

use varve_archive::record::state::PartitionState;
use varve_archive::{Archive, PieceContent, Result, Snapshot};

use crate::turns::finish;
use crate::world::Batch;

/// What lies behind a partition's chain as a snapshot has it.
pub struct Promise {
    snapshot: Snapshot,
    state: PartitionState,
    batches: Vec<Batch>,
}

pub fn of(archive: &Archive, snapshot: &Snapshot) -> Result<Vec<Promise>> {
    let mut walk = archive.partitions(snapshot.record.root.as_ref());
    let mut made = Vec::new();
    while let Some(state) = finish(walk.next())? {
        if state.journal.is_some() {
            let batches = finish(read(archive, snapshot, &state))?;
            made.push(Promise { snapshot: snapshot.clone(), state, batches });
        }
    }
    Ok(made)
}

async fn read(archive: &Archive, snapshot: &Snapshot, state: &PartitionState) -> Result<Vec<Batch>> {
    let journal = archive.journal_of(&snapshot.record, |_, _| true).await?;
    let log = archive.log_reader(Some(&snapshot.record)).await?.at(state, None, &journal)?;
    let (mut found, mut pieces) = (Vec::<Batch>::new(), log.pieces(state.chain_end()));
    while let Some(piece) = pieces.next().await? {
        assert!(!matches!(piece.content, PieceContent::Gap(_)), "a gap where records were promised");
        let Some(object) = log.open(&piece).await? else { continue };
        let mut stream = object.read(0, 1)?;
        let mut bytes = Vec::new();
        while let Some(part) = stream.next().await? {
            bytes.extend_from_slice(&part);
        }
        let theirs = |b: &Batch| b.end > piece.first_offset && b.base < piece.end_offset;
        found.extend(Batch::parse(&bytes).into_iter().filter(theirs));
    }
    found.dedup();
    Ok(found)
}

pub fn kept(archive: &Archive, promises: &[Promise]) -> std::result::Result<(), String> {
    for promise in promises {
        let what = format!(
            "a_recovery_point_stays_what_it_was: snapshot {}, {} {} from {} to {}",
            promise.snapshot.record.sequence,
            promise.state.topic_id,
            promise.state.partition,
            promise.state.chain_end(),
            promise.state.end()
        );
        let found =
            finish(read(archive, &promise.snapshot, &promise.state)).map_err(|e| format!("{what}: {e}"))?;
        if found != promise.batches {
            return Err(format!("{what}: promised {:?}, reads {found:?}", promise.batches));
        }
    }
    Ok(())
}
