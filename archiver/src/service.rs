//! The archiver as a whole: finds partitions, gives each to the worker of the broker that leads it, writes
//! snapshots, lets the journal expire, and ends in an orderly way.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use varve_archive::record::snapshot::Signer;
use varve_archive::record::state::JournalEntry;
use varve_archive::{Archive, HashAlgorithm, Snapshot};
use varve_format::{DigestAlgorithm, Id};
use varve_kafka::client::{Client, FetchLimits, GroupMember, Released};
use varve_store::{CountingStore, Counts, Rate, SharedStore, ThrottledStore};

use crate::clock;
use crate::config::Config;
use crate::departed::Departed;
use crate::discovery::{Discovery, Wanted};
use crate::error::{Error, Result};
use crate::journal::{self, Journal};
use crate::memory::Memory;
use crate::metrics::{FailureKind, GroupState, Task};
use crate::progress::Progress;
use crate::rebalance::{self, Assigned};
use crate::recovery_point::Pending;
use crate::resident;
use crate::running::{LOOK, Running};
use crate::sealing::Sealing;
use crate::segment::Style;
use crate::sharing::{self, Share};
use crate::signing::read_signer;
use crate::tail::Key;
use crate::worker::{Rules, Shared};
use varve_cluster::{EarlierState, Part, RegistryLogin, RegistrySettings, SchemaRegistry, StateParts};

pub(crate) const WRITER: &str = concat!("varve ", env!("CARGO_PKG_VERSION"));
const FRAME_BYTES: u32 = 64 << 10;
/// So many parts fit into the budget.
const PARTS_IN_BUDGET: u64 = 16;
const TICK: Duration = Duration::from_millis(200);
/// Between two looks at which bundles may go.
const EXPIRE: Duration = Duration::from_secs(60);
/// How long an end may take.
pub(crate) const GOODBYE: Duration = Duration::from_secs(30);

/// An archiver, with its store open, connected to no broker yet.
pub struct Archiver {
    pub(crate) config: Config,
    pub(crate) archive: Archive,
    pub(crate) store: SharedStore,
    pub(crate) sealing: Arc<Sealing>,
    pub(crate) client: Client,
    pub(crate) progress: Arc<Progress>,
    /// What is asked of the store.
    pub(crate) counts: Arc<Counts>,
    pub(crate) parts: StateParts,
    pub(crate) registry: Option<SchemaRegistry>,
    pub(crate) signer: Option<Signer>,
}

/// What a run to the ends of the logs came to.
#[derive(Debug)]
pub struct Outcome {
    pub partitions: usize,
    /// Partitions that could not be archived to their ends, and why.
    pub unfinished: Vec<(String, i32, String)>,
    /// Topics that the configuration names, and that neither the cluster has nor the archive.
    pub missing: Vec<String>,
    pub snapshot: Snapshot,
}

/// What a service keeps of itself between two steps.
pub(crate) struct Service {
    pub(crate) running: Running,
    pub(crate) discovery: Discovery,
    pub(crate) group: Option<GroupMember>,
    pub(crate) share: Share,
    /// Assigned, and not begun with.
    pub(crate) assigned: Option<Assigned>,
    /// Held until all was given back.
    pub(crate) released: Option<Released>,
    pub(crate) pending: Option<Pending>,
    pub(crate) snapshot_at: Option<Instant>,
    /// How far all was when the last snapshot was made.
    pub(crate) reached: Option<i64>,
    /// Whether no broker answered at the last look.
    pub(crate) is_away: bool,
    /// At the end: what was ours.
    pub(crate) last_ours: Vec<Key>,
    expire_at: Instant,
}

impl Archiver {
    /// Opens the archive, or creates it.
    ///
    /// # Errors
    /// Of the store and the archive; of files (keys, certificates) that can't be read.
    pub async fn open(config: Config) -> Result<Self> {
        let store = varve_store::open(&config.archive.url, &config.archive.store_settings).await?;
        let counted = CountingStore::new(store);
        let counts = Arc::clone(counted.counts());
        let store: SharedStore = Arc::new(counted);
        let store: SharedStore = match config.limits.upload_rate {
            0 => store,
            rate => Arc::new(ThrottledStore::new(store, Rate::new(rate))),
        };
        let (id, hash) = (Id(rand::random()), config.archive.hash);
        let archive = Archive::create(store, "", id, hash, WRITER, clock::now_ms()).await?;
        let mut archiver = Self::over(config, archive)?;
        archiver.counts = counts;
        Ok(archiver)
    }

    /// Over an archive that is open.
    pub(crate) fn over(config: Config, archive: Archive) -> Result<Self> {
        // The archive's own view: what is put counts only where no older version is hidden.
        let store = archive.shelf().shared();
        let sealing = Sealing::open(&config.encryption, Arc::clone(&store))?;
        let client = Client::new(config.source.clone())?;
        let registry = registry(&config)?;
        let signer = config.snapshots.signing_key_file.as_deref().map(read_signer).transpose()?;
        let parts = parts(&config);
        let progress = Arc::new(Progress::new(config.metrics.topics_max));
        let counts = Arc::default();
        Ok(Self { config, archive, store, sealing, client, progress, counts, parts, registry, signer })
    }

    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Archives everything up to the ends that the logs have now, and writes a snapshot.
    ///
    /// # Errors
    /// What concerns the whole: a partition's troubles are part of the outcome.
    pub async fn run_once(&self) -> Result<Outcome> {
        let found = journal::found(&self.archive).await?.0;
        let mut discovery = self.discovery(&found).await?;
        let wanted = discovery.look(&self.archive, WRITER).await?;
        let pending = self.begin_snapshot(&wanted, &discovery.unread).await?;
        let mut running = self.start(None);
        running.found = found;
        running.stops = Some(pending.ends.clone());
        self.note_seen(&mut running, &wanted).await?;
        running.take(wanted, &Share::All);
        let patience = self.client.config().api_timeout.max(Duration::from_secs(60));
        let (mut progressed, mut seen) = (Instant::now(), 0);
        while !running.is_done() && progressed.elapsed() < patience {
            if let Ok(Some(notice)) = tokio::time::timeout(TICK, running.notices.recv()).await {
                running.notice(notice);
            }
            if running.look_at <= Instant::now() {
                running.look_at = Instant::now() + LOOK;
                if running.has_homeless() {
                    let wanted = discovery.look(&self.archive, WRITER).await?;
                    running.take(wanted, &Share::All);
                }
            }
            let now = self.progress.reached();
            if std::mem::replace(&mut seen, now) != now {
                progressed = Instant::now();
            }
        }
        let gone = self.departed(&discovery.departed.due(), &Share::All).await?;
        let snapshot = self.finish_snapshot(pending, gone, discovery.cluster_id()).await?;
        let unfinished = running.wanted.iter().filter(|(key, _)| !running.done.contains(*key));
        let unfinished = unfinished.map(|(key, wanted)| {
            let why = running.troubles.get(key).cloned();
            (wanted.topic.name.clone(), wanted.partition, why.unwrap_or_else(|| "no leader".to_owned()))
        });
        let partitions = running.wanted.len();
        let unfinished = unfinished.collect();
        let missing = self.without_archived(discovery.missing(), &snapshot).await?;
        Ok(Outcome { partitions, unfinished, missing, snapshot })
    }

    /// Those that the snapshot has nothing of: what it has was archived while it was there.
    async fn without_archived(&self, mut names: Vec<String>, snapshot: &Snapshot) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(names);
        }
        let mut leaves = self.archive.leaves(snapshot.record.root.as_ref());
        while let Some(leaf) = leaves.next_whole(|_| {}).await? {
            names.retain(|name| !leaf.iter().any(|entry| entry.topic.as_ref() == Some(name)));
        }
        Ok(names)
    }

    /// Archives until `stop`; then puts into the archive what is held, and writes a last snapshot.
    ///
    /// # Errors
    /// What can't go by itself before anything has begun: denied, misconfigured. Later on, troubles are logged,
    /// and what failed is tried again for as long as it takes.
    pub async fn run(&self, stop: impl Future<Output = ()>) -> Result<()> {
        let _listening = self.listen().await?;
        let (name, progress) = (self.config.journal.name.clone(), Arc::clone(&self.progress));
        let journal = Journal::start(self.archive.clone(), name, WRITER.to_owned(), progress);
        let (found, bundles) = journal::found(&self.archive).await?;
        journal.inherit(bundles);
        let group = self.config.group.as_ref().map(|group| sharing::join(&self.client, group));
        self.progress.tally.group(if group.is_some() { GroupState::Joining } else { GroupState::None });
        let discovery = self.discovery(&found).await?;
        let mut service = self.service(journal, discovery, group);
        service.running.found = found;
        match self.look(&mut service).await {
            Err(error) if !error.is_passing() => return Err(error),
            Err(error) => {
                service.is_away = error.is_away();
                tracing::warn!(%error, "the cluster's topics can't be looked at yet");
            }
            Ok(()) => {}
        }
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                Some(notice) = service.running.notices.recv() => service.running.notice(notice),
                event = rebalance::next_event(&mut service.group) => self.group_event(&mut service, event).await?,
                // A cluster that is away must not keep us from stopping.
                _ = tick.tick() => tokio::select! {
                    () = &mut stop => break,
                    () = self.step(&mut service) => {}
                },
            }
        }
        self.goodbye(service).await
    }

    /// `journal` is what it has.
    pub(crate) async fn discovery(&self, journal: &HashMap<Key, Vec<JournalEntry>>) -> Result<Discovery> {
        let brokers: Vec<String> =
            self.client.config().bootstrap_servers.iter().map(ToString::to_string).collect();
        tracing::info!(brokers = brokers.join(","), archive = self.store.url(), "asking the cluster");
        let newest = self.newest_trusted().await?;
        let departed = Departed::look_back(&self.archive, newest.as_ref(), journal, clock::now_ms()).await?;
        Ok(Discovery::new(self.client.clone(), self.config.topics.clone(), departed))
    }

    pub(crate) fn service(
        &self,
        journal: Journal,
        discovery: Discovery,
        group: Option<GroupMember>,
    ) -> Service {
        Service {
            running: self.start(Some(journal)),
            discovery,
            share: if group.is_some() { Share::Nothing } else { Share::All },
            group,
            assigned: None,
            released: None,
            pending: None,
            snapshot_at: self.next_snapshot(),
            reached: None,
            is_away: false,
            last_ours: Vec::new(),
            expire_at: Instant::now() + EXPIRE,
        }
    }

    async fn step(&self, service: &mut Service) {
        self.progress.tally.beat(Task::Service);
        self.begin_share(service).await;
        if service.running.look_at <= Instant::now() {
            service.running.look_at = Instant::now() + LOOK;
            let looked = self.look(service).await;
            let is_away = looked.as_ref().is_err_and(Error::is_away);
            if is_away && !service.is_away {
                // Others may have brought what no snapshot has.
                service.reached = None;
            }
            service.is_away = is_away;
            if let Err(error) = looked {
                tracing::warn!(%error, "the cluster's topics can't be looked at");
                self.progress.tally.error(FailureKind::of(&error));
            }
        }
        if service.released.is_some() && service.running.given.is_empty() {
            service.released = None;
        }
        if let Err(error) = self.snapshot_step(service).await {
            tracing::warn!(%error, "no snapshot");
            self.progress.tally.error(FailureKind::of(&error));
            service.pending = None;
        }
        if service.expire_at <= Instant::now() {
            service.expire_at = Instant::now() + EXPIRE;
            if let Err(error) = self.expire(&service.running).await {
                tracing::warn!(%error, "the journal can't be tidied");
                self.progress.tally.error(FailureKind::of(&error));
            }
        }
    }

    async fn look(&self, service: &mut Service) -> Result<()> {
        let wanted = service.discovery.look(&self.archive, WRITER).await?;
        self.note_seen(&mut service.running, &wanted).await?;
        service.running.take(wanted, &service.share);
        Ok(())
    }

    async fn expire(&self, running: &Running) -> Result<()> {
        let Some(journal) = &running.shared.journal else { return Ok(()) };
        let progress = &self.progress;
        let known = |key, branch| {
            let known = progress.partition(key).filter(|known| known.branch == branch);
            known.map(|known| known.archived_end)
        };
        let expired = journal.expire(&self.archive, known).await?;
        if expired > 0 {
            tracing::debug!(expired, "bundles of the journal are covered");
        }
        Ok(())
    }

    /// All that is held goes into the archive, within a bounded time.
    async fn goodbye(&self, mut service: Service) -> Result<()> {
        self.progress.tally.stopping();
        let wanted: Vec<Wanted> = service.running.wanted.values().cloned().collect();
        let share = service.share.clone();
        service.last_ours = wanted.iter().map(Wanted::key).collect();
        service.running.take(Vec::new(), &Share::Nothing);
        let until = Instant::now() + GOODBYE;
        while !service.running.given.is_empty() && Instant::now() < until {
            if let Ok(Some(notice)) = tokio::time::timeout(TICK, service.running.notices.recv()).await {
                service.running.notice(notice);
            }
        }
        if !service.running.given.is_empty() {
            let left = service.running.given.len();
            tracing::warn!(left, "partitions whose last batches are not in the archive yet");
        }
        let last = self.last_snapshot(&mut service, &share, &wanted).await;
        if let Some(group) = service.group {
            group.leave().await;
        }
        last
    }

    fn start(&self, journal: Option<Journal>) -> Running {
        let (sender, notices) = mpsc::unbounded_channel();
        let memory_bytes = self.config.limits.memory_bytes;
        let mut limits = FetchLimits::new(&self.config.source);
        // Answers are in memory besides what is held of them: two for each broker.
        let answer = i32::try_from(memory_bytes / 16).unwrap_or(i32::MAX);
        limits.max_bytes = limits.max_bytes.min(answer);
        limits.partition_max_bytes = limits.partition_max_bytes.max(answer / 4).min(answer);
        let held = memory_bytes.saturating_sub(memory_bytes / 3);
        let memory = Memory::new(usize::try_from(held).unwrap_or(usize::MAX));
        tokio::spawn(resident::hold(memory_bytes, Arc::downgrade(&memory)));
        // Told once: a process runs one service.
        let _ = self.progress.tally.memory.set(Arc::clone(&memory));
        let shared = Shared {
            client: self.client.clone(),
            style: Arc::new(self.style()),
            rules: Arc::new(Rules {
                segment_bytes: self.config.segments.bytes,
                min_bytes: self.config.segments.min_bytes,
                hold: self.config.journal.rpo / 2,
                age: self.config.segments.age,
            }),
            memory,
            progress: Arc::clone(&self.progress),
            journal,
            notices: sender,
            read_rate: Rate::new(self.config.limits.read_rate),
            met: Arc::default(),
        };
        Running {
            shared,
            archive: self.archive.clone(),
            store: Arc::clone(&self.store),
            sealing: Arc::clone(&self.sealing),
            notices,
            limits,
            workers: HashMap::new(),
            wanted: HashMap::new(),
            given: HashMap::new(),
            done: HashSet::new(),
            troubles: HashMap::new(),
            stuck: HashSet::new(),
            stops: None,
            found: HashMap::new(),
            seen_ms: HashMap::new(),
            look_at: Instant::now() + LOOK,
        }
    }

    pub(crate) fn style(&self) -> Style {
        let limits = self.store.limits();
        let frame = u64::from(FRAME_BYTES);
        let share = self.config.limits.memory_bytes / PARTS_IN_BUDGET;
        let part = limits.preferred_part_bytes.min(share).max(limits.min_part_bytes).max(frame);
        let digest = match self.archive.hash() {
            HashAlgorithm::Blake3 => DigestAlgorithm::Blake3,
            HashAlgorithm::Sha256 => DigestAlgorithm::Sha256,
        };
        Style {
            frame_bytes: FRAME_BYTES,
            chunk_bytes: self.config.archive.chunk_bytes,
            compression: self.config.archive.compression,
            digest,
            part_bytes: usize::try_from(part.next_multiple_of(frame)).unwrap_or(usize::MAX),
            parallel_parts: limits.preferred_parallel_parts,
            storage_class: self.config.archive.storage_class.clone(),
            writer: WRITER.to_owned(),
        }
    }

    /// For compacted topics: when the newest snapshot saw them archived up to their ends. What is damaged has seen
    /// nothing.
    async fn note_seen(&self, running: &mut Running, wanted: &[Wanted]) -> Result<()> {
        let compacted = |w: &&Wanted| w.topic.delete_retention_ms.is_some();
        let new: Vec<_> =
            wanted.iter().filter(compacted).filter(|w| !running.seen_ms.contains_key(&w.key())).collect();
        if new.is_empty() {
            return Ok(());
        }
        let snapshot = self.archive.latest_snapshot(0).await?;
        let asked_ms = match &snapshot {
            // When the cluster was asked.
            Some(snapshot) => match EarlierState::of(&self.archive, snapshot).await {
                Ok(earlier) => earlier.map_or(snapshot.record.created_ms, |earlier| earlier.created_ms),
                Err(error) if error.is_damage() => 0,
                Err(error) => return Err(error.into()),
            },
            None => 0,
        };
        for wanted in new {
            let key = wanted.key();
            let mut seen_ms = 0;
            if let Some(snapshot) = &snapshot {
                let state = match self.archive.entry(snapshot.record.root.as_ref(), key.0, key.1).await {
                    Err(error) if error.is_damage() => None,
                    state => state?,
                };
                if state.is_some_and(|state| state.log_end_offset.is_none()) {
                    seen_ms = asked_ms;
                }
            }
            running.seen_ms.insert(key, seen_ms);
        }
        Ok(())
    }
}

fn registry(config: &Config) -> Result<Option<SchemaRegistry>> {
    let Some(given) = &config.schema_registry else { return Ok(None) };
    let mut settings = RegistrySettings::new(given.url.clone());
    settings.login = given.login.clone().map(|(user, password)| RegistryLogin::Basic { user, password });
    settings.tls.ca.clone_from(&given.ca_file);
    Ok(Some(SchemaRegistry::new(settings)?))
}

fn parts(config: &Config) -> StateParts {
    let state = &config.state;
    let wanted = [
        (Part::Topics, state.topics),
        (Part::Groups, state.groups),
        (Part::Acls, state.acls),
        (Part::Users, state.users),
        (Part::Quotas, state.quotas),
        (Part::Configs, state.configs),
        (Part::Features, state.features),
        (Part::Schemas, state.schemas),
    ];
    wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(part, _)| part).collect()
}

impl Outcome {
    pub fn is_whole(&self) -> bool {
        self.unfinished.is_empty() && self.missing.is_empty()
    }
}

impl std::fmt::Debug for Archiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archiver").field("archive", &self.archive.id()).finish_non_exhaustive()
    }
}
