//! The archive's rules under a seed: many archivers over one store that loses, repeats and delays requests, while
//! leaders come and go uncleanly, log starts move, topics are re-created, and archivers are killed anywhere; and, where
//! the store keeps versions, somebody hides and overwrites what is there.
//!
//! `SIM_SEED=n cargo test … --test sim` runs one seed again; `SIM_SEEDS=n` runs as many.

#![allow(clippy::panic, unreachable_pub)]

mod adversary;
mod archiver;
mod invariants;
mod promise;
mod rng;
mod turns;
mod world;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use varve_archive::{Archive, HashAlgorithm};
use varve_store::MemoryStore;

use archiver::{Archiver, Broken, Shared};
use rng::Rng;
use turns::{Task, UnrulyStore, finish, poll};
use world::World;

const STEPS: usize = 600;

/// What a run came to: the invariant that does not hold, if any.
fn run(seed: u64, broken: Broken) -> Result<Stats, String> {
    let rng = Rng::new(seed);
    // In every third run the store keeps versions, and somebody tampers with it.
    let tampered = seed % 3 == 2;
    let memory = if tampered { MemoryStore::versioned() } else { MemoryStore::new() };
    let trouble = [0, 2, 6][rng.below(3)];
    let store = UnrulyStore::new(Arc::new(memory.clone()), rng.clone(), trouble);
    let world = Rc::new(RefCell::new(World::new(rng.clone())));
    let archive = create(&store, &rng);
    let snapshots = Rc::new(RefCell::new(Vec::new()));
    let shared = Shared {
        world: Rc::clone(&world),
        archive,
        rng: rng.clone(),
        broken,
        snapshots: Rc::clone(&snapshots),
        calm: finish(Archive::open(Arc::new(memory.clone()), "")).expect("it is there"),
        promises: Rc::default(),
    };
    let mut born = 0;
    let mut spawn = || -> Task<'static> {
        born += 1;
        Box::pin(Archiver::new(shared.clone(), format!("archiver-{born}")).run())
    };
    let mut tasks: Vec<Task<'_>> = (0..1 + rng.below(4)).map(|_| spawn()).collect();
    for _ in 0..STEPS {
        if rng.percent(8) {
            world.borrow_mut().happen();
        }
        if rng.percent(2) {
            store.deliver_late();
        }
        if tampered && rng.percent(3) {
            adversary::tamper(&memory, &rng);
        }
        let task = rng.below(tasks.len());
        if rng.percent(1) {
            // kill -9, in the midst of whatever it awaits.
            tasks[task] = spawn();
        }
        poll(&mut tasks[task]);
    }
    drop(tasks);
    store.calm();
    while store.deliver_late() {}
    catch_up(&shared)?;
    let snapshots = snapshots.borrow();
    invariants::all(&adversary::as_written(&memory), &shared.archive, &world.borrow(), &snapshots)?;
    let promises = shared.promises.borrow();
    promise::kept(&shared.calm, &promises)?;
    Ok(Stats { snapshots: snapshots.len(), branches: branches(&shared), promises: promises.len() })
}

#[derive(Default)]
struct Stats {
    snapshots: usize,
    branches: usize,
    promises: usize,
}

fn create(store: &UnrulyStore, rng: &Rng) -> Archive {
    loop {
        let id = rng.id();
        let created = Archive::create(Arc::new(store.clone()), "", id, HashAlgorithm::Blake3, "sim", 0);
        match finish(created) {
            Ok(archive) => return archive,
            Err(e) if e.kind() == varve_archive::Kind::Retry => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// All is quiet; one archiver goes on until there is nothing left.
fn catch_up(shared: &Shared) -> Result<(), String> {
    let mut last = Archiver::new(shared.clone(), "last".to_owned());
    let logs = shared.world.borrow().logs.len();
    for log in 0..logs {
        if !shared.world.borrow().logs[log].deleted {
            let mut more = true;
            let mut rounds = 0;
            while more {
                more = finish(last.append(log)).map_err(|e| format!("archivers_go_on: {e}"))?;
                rounds += 1;
                if rounds > 5_000 {
                    return Err("archivers_come_to_an_end".to_owned());
                }
            }
        }
    }
    finish(last.snapshot()).map_err(|e| format!("snapshots_can_be_written: {e}"))
}

fn branches(shared: &Shared) -> usize {
    let world = shared.world.borrow();
    let of = |log: &world::Log| {
        finish(shared.archive.partition(log.topic_id, log.partition).branches(0)).map_or(0, |b| b.len())
    };
    world.logs.iter().map(of).sum()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_the_invariants_hold() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(2_000),
    };
    let mut sum = Stats::default();
    for seed in seeds.clone() {
        match run(seed, Broken::Nothing) {
            Ok(stats) => {
                sum.snapshots += stats.snapshots;
                sum.branches += stats.branches;
                sum.promises += stats.promises;
            }
            Err(what) => panic!("SIM_SEED={seed}: {what}"),
        }
    }
    println!(
        "{} seeds: {} snapshots, {} branches, {} promises",
        seeds.count(),
        sum.snapshots,
        sum.branches,
        sum.promises
    );
}

/// What the invariants say when a rule is broken, of the first seed that shows it.
fn seen(broken: Broken) -> String {
    (0..300).find_map(|seed| run(seed, broken).err()).expect("a broken rule is seen within 300 seeds")
}

#[test]
fn an_archiver_that_never_asks_mixes_histories() {
    let what = seen(Broken::NeverAsksForEpochs);
    assert!(what.contains("a_branch_is_one_leaders_history") || what.contains("nothing_is_lost"), "{what}");
}

#[test]
fn an_archiver_that_does_not_ask_again_mixes_histories() {
    let what = seen(Broken::AsksOnce);
    assert!(what.contains("a_branch_is_one_leaders_history") || what.contains("nothing_is_lost"), "{what}");
}

#[test]
fn an_object_keyed_by_its_own_base_breaks_the_chain() {
    let what = seen(Broken::KeyedByOwnBase);
    let said = ["the_chain_has_no_hole", "archivers_go_on", "snapshots_can_be_written"];
    assert!(said.iter().any(|name| what.contains(name)), "{what}");
}

#[test]
fn what_is_not_committed_is_seen_in_the_archive() {
    let what = seen(Broken::ReadsUncommitted);
    assert!(what.contains("history") || what.contains("nothing_is_lost"), "{what}");
}

#[test]
fn a_bundle_that_expires_too_early_is_missed() {
    let what = seen(Broken::ExpiresTooEarly);
    let said = ["any_snapshot_verifies_for_ever", "nothing_is_lost"];
    assert!(said.iter().any(|name| what.contains(name)), "{what}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let of = |seed| run(seed, Broken::Nothing).map(|s| (s.snapshots, s.branches));
    (0..20).for_each(|seed| assert_eq!(of(seed), of(seed)));
}
