//! A million segments in 10,000 partitions: a snapshot costs what is new, and a walk holds one path of the tree.
//!
//! The heads of a million objects would take minutes to make; so the objects are tiny, and the walk over the
//! manifests is what is measured. A quarter of a minute.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::*;
use varve_archive::*;
use varve_store::{MemoryStore, Operation};

const PARTITIONS: i32 = 10_000;
const SEGMENTS: i64 = 100;

#[test]
fn a_million_segments_are_walked_in_bounded_memory() {
    now(async {
        let store = MemoryStore::new();
        let counted = counting(&store);
        let counts = std::sync::Arc::clone(counted.counts());
        let archive = archive(counted).await;
        archive.add_topic(&topic()).await.unwrap();
        let started = std::time::Instant::now();
        for partition in 0..PARTITIONS {
            let handle = archive.partition(TOPIC, partition);
            for n in 0..SEGMENTS {
                handle.commit(0, n * 10, segment(partition, n * 10, n * 10 + 10)).await.unwrap();
            }
        }
        println!("committed in {:?}", started.elapsed());
        let started = std::time::Instant::now();
        let first = snapshot(&archive, 0..PARTITIONS).await;
        println!("first snapshot in {:?}", started.elapsed());
        let root = first.record.root.clone().unwrap();
        assert_eq!((root.partitions, root.objects), (PARTITIONS as u64, 1_000_000));

        grow(&archive, 4242, 1).await;
        let before = counts.calls();
        let started = std::time::Instant::now();
        let second = snapshot(&archive, 4242..4243).await;
        println!("second snapshot in {:?}, {} calls", started.elapsed(), counts.calls() - before);
        assert!(counts.calls() - before < 40, "{} calls", counts.calls() - before);

        let before = counts.of(Operation::Get).calls;
        let started = std::time::Instant::now();
        let mut walk = archive.partitions(second.record.root.as_ref());
        let mut objects = 0;
        while let Some(state) = walk.next().await.unwrap() {
            objects += state.branches[0].objects();
        }
        let gets = counts.of(Operation::Get).calls - before;
        println!("walked {objects} objects in {:?}, {gets} gets", started.elapsed());
        assert_eq!(objects, 1_000_001);
        assert!(gets < 10_400, "{gets}");

        let started = std::time::Instant::now();
        let report = verify(&archive, 2, Depth::Listed).await;
        println!("verified in {:?}", started.elapsed());
        assert!(report.is_sound() && report.progress.objects == 1_000_001);
    });
}
