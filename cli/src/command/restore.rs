//! `varve restore`

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::json;
use varve_archive::Archive;
use varve_cluster::SchemaRegistry;
use varve_format::Id;
use varve_kafka::client::{Client, ClientConfig};
use varve_kafka::replica::Controller;
use varve_restore::apply::{Applied, Apply, ApplyOptions, Stage, cleanup, put_modes_back, schemas};
use varve_restore::at::snapshot_at;
use varve_restore::history::KeyCache;
use varve_restore::plan::{Mode, Plan, Reach, Wanted, plan};
use varve_restore::release::{release, releases};
use varve_restore::schemas::WantedSchemas;
use varve_restore::select::{Patterns, Selection};
use varve_restore::source::Source;
use varve_restore::users::passwords;
use varve_restore::verify::{Verified, verify};

use crate::args::restore::{
    AccessArgs, ApplyArgs, ChangeArgs, HowArgs, ModeArg, PlannedArgs, RestoreArgs, RestoreCommand, RunArgs,
    SchemaArgs, SnapshotArg,
};
use crate::args::{client_config, listener_config};
use crate::output::time;
use crate::process::{now_ms, stopped};
use crate::restore::{self as shown, Report};
use crate::{Verdict, location, logging, progress, registry};

pub(crate) async fn run(args: RestoreArgs) -> Result<Verdict> {
    logging::of_command()?;
    match args.command {
        None => plan_and_apply(args.run).await,
        Some(RestoreCommand::Apply(args)) => apply_file(args).await,
        Some(RestoreCommand::Verify(args)) => verify_file(args).await,
        Some(RestoreCommand::Cleanup(args)) => clean(args).await,
        Some(RestoreCommand::Release(args)) => released(args).await,
    }
}

/// Archive and target, opened.
pub(crate) struct Ends {
    pub(crate) archive: Archive,
    pub(crate) keys: Arc<KeyCache>,
    pub(crate) client: Client,
    pub(crate) controllers: ClientConfig,
    /// The target's, if there is anything to do with it.
    pub(crate) registry: Option<SchemaRegistry>,
}

impl Ends {
    pub(crate) async fn open(
        url: &str,
        brokers: &str,
        controllers: &str,
        access: &AccessArgs,
    ) -> Result<Self> {
        let archive = location::open_archive(url, &access.store.settings()?).await?;
        let keys = Arc::new(KeyCache::new(&archive, access.keys.open(&archive.shelf().shared())?));
        let client = Client::new(client_config(brokers, access.command_config.as_deref())?)?;
        // Without controllers nobody asks them.
        let controllers = match controllers.is_empty() {
            true => client.config().clone(),
            false => client_config(controllers, access.controller_config.as_deref())?,
        };
        Ok(Self { archive, keys, client, controllers, registry: None })
    }

    async fn of(plan: &Plan, access: &AccessArgs) -> Result<Self> {
        let target = &plan.target;
        let ends =
            Self::open(&plan.archive.url, &target.bootstrap_servers, &target.controllers, access).await?;
        ends.with_registry(plan.schemas.as_ref().map(|s| s.url.as_str()), access)
    }

    fn with_registry(mut self, url: Option<&str>, access: &AccessArgs) -> Result<Self> {
        let config = access.schema_registry_config.as_deref();
        self.registry = url.map(|url| registry::open(url, config)).transpose()?;
        Ok(self)
    }

    /// As the plan has it.
    async fn source(&self, plan: &Plan) -> Result<Source> {
        let wanted = |name: &str| plan.topics.iter().any(|t| t.topic == name);
        Ok(Source::open(&self.archive, Some(plan.archive.snapshot), wanted).await?)
    }
}

async fn plan_and_apply(args: RunArgs) -> Result<Verdict> {
    let (from, to) = (args.from.context("--from")?, args.to.context("--to")?);
    let mode = match (args.mode, &args.controller) {
        (Some(ModeArg::Leader), None) => bail!("--mode leader needs --controller"),
        (Some(ModeArg::Leader), _) | (None, Some(_)) => Mode::Leader,
        (Some(ModeArg::Produce), _) | (None, None) => Mode::Produce,
    };
    let controllers = args.controller.filter(|_| mode == Mode::Leader).unwrap_or_default();
    let ends = Ends::open(&from, &to, &controllers, &args.access).await?;
    let ends = ends.with_registry(args.schemas.schema_registry.as_deref(), &args.access)?;
    let selection = Selection {
        topics: Patterns::new(&args.what.topics)?,
        without: Patterns::new(&args.what.without)?,
        groups: Patterns::new(&args.groups)?,
        renamed: args.rename.into_iter().collect(),
        partitions: merged(args.partitions),
        offsets: args.offsets.into_iter().collect(),
        since_ms: args.since,
        as_of_ms: args.as_of,
    };
    let reach = reach(&args.how, &to)?;
    let bar = progress::unknown("looking at the archive and the target");
    let at = sequence(&ends.archive, args.what.at).await?;
    let mut source = Source::open(&ends.archive, at, |name| selection.has_topic(name)).await?;
    source.recall(&selection).await?;
    let wanted = Wanted {
        restore_id: Id(*uuid::Uuid::new_v4().as_bytes()),
        now_ms: now_ms()?,
        archive_url: from,
        bootstrap_servers: to,
        controllers,
        selection,
        replication_factor: args.replication_factor,
        broker_id: args.broker_id,
        parts: shown::parts(&args.parts)?,
        into_its_source: args.into_its_source,
        reach,
        skip_corrupt: args.skip_corrupt,
        schemas: wanted_schemas(&args.parts, args.schemas, ends.registry.as_ref())?,
        mode,
        filler_max: args.filler_max,
    };
    let controller = Controller::new(ends.controllers.clone())?;
    let made = plan(&source, &ends.keys, &ends.client, &controller, &wanted).await;
    bar.finish_and_clear();
    let made = made?;
    let path = args.plan.unwrap_or_else(|| PathBuf::from(format!("restore-{}.plan", made.restore_id)));
    write_new(&path, &made)?;
    if args.access.json && args.dry_run {
        println!("{}", serde_json::to_string(&made)?);
    } else if !args.access.json {
        shown::plan(&made, &path, &mut std::io::stdout().lock())?;
        shown::throttled(&made, args.how.throttle, &mut std::io::stdout().lock())?;
    }
    if let Some(refusal) = made.refusals.first() {
        if args.dry_run {
            return Ok(Verdict::Findings);
        }
        bail!("{}: {}", refusal.what, refusal.todo);
    }
    if args.dry_run {
        if !args.access.json {
            println!("next        varve restore apply {}", path.display());
        }
        return Ok(Verdict::Clean);
    }
    if !agreed(args.how.yes, "Apply this plan?")? {
        return Ok(Verdict::Clean);
    }
    apply(&made, &path, &source, &ends, &args.how, args.access.json).await
}

fn merged(all: Vec<(String, BTreeSet<i32>)>) -> BTreeMap<String, BTreeSet<i32>> {
    let mut merged: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for (topic, partitions) in all {
        merged.entry(topic).or_default().extend(partitions);
    }
    merged
}

/// `None` is the latest.
pub(crate) async fn sequence(archive: &Archive, at: SnapshotArg) -> Result<Option<u64>> {
    Ok(match at {
        SnapshotArg::Latest => None,
        SnapshotArg::Number(number) => Some(number),
        SnapshotArg::Time(time_ms) => Some(snapshot_at(archive, time_ms, time).await?),
    })
}

/// `None` without a registry.
fn wanted_schemas(
    parts: &[String],
    args: SchemaArgs,
    registry: Option<&SchemaRegistry>,
) -> Result<Option<WantedSchemas>> {
    let (Some(url), Some(registry)) = (args.schema_registry, registry) else { return Ok(None) };
    if !parts.iter().any(|part| part == "schemas") {
        bail!("--schema-registry is for the part schemas, which is not among --parts");
    }
    Ok(Some(WantedSchemas {
        registry: registry.clone(),
        url,
        subjects: Patterns::new(&args.subjects)?,
        ids_may_change: args.schema_ids_may_change,
    }))
}

async fn apply_file(args: ApplyArgs) -> Result<Verdict> {
    let plan = read(&args.plan)?;
    let ends = Ends::of(&plan, &args.access).await?;
    let source = ends.source(&plan).await?;
    if !args.access.json {
        shown::plan(&plan, &args.plan, &mut std::io::stdout().lock())?;
        shown::throttled(&plan, args.how.throttle, &mut std::io::stdout().lock())?;
    }
    if !agreed(args.how.yes, "Apply this plan?")? {
        return Ok(Verdict::Clean);
    }
    apply(&plan, &args.plan, &source, &ends, &args.how, args.access.json).await
}

/// How it went.
pub(crate) struct CarriedOut {
    applied: Applied,
    verified: Option<Verified>,
    started_ms: i64,
    applied_ms: i64,
    ended_ms: i64,
}

impl CarriedOut {
    pub(crate) fn report<'a>(&'a self, plan: &'a Plan) -> Report<'a> {
        Report {
            plan,
            applied: Some(&self.applied),
            verified: self.verified.as_ref(),
            started_ms: self.started_ms,
            applied_ms: self.applied_ms,
            ended_ms: self.ended_ms,
        }
    }
}

async fn apply(
    plan: &Plan,
    path: &Path,
    source: &Source,
    ends: &Ends,
    how: &HowArgs,
    json: bool,
) -> Result<Verdict> {
    let outcome = carry_out(plan, path, source, ends, how).await;
    let outcome = outcome.inspect_err(|_| {
        let path = path.display();
        eprintln!(
            "not finished. Go on with: varve restore apply {path}\n\
             or take back what was begun with: varve restore cleanup {path}"
        );
    })?;
    let report = outcome.report(plan);
    let document = report.json();
    let place = how.report.clone().unwrap_or_else(|| beside(path, ".report.json"));
    std::fs::write(&place, serde_json::to_vec_pretty(&document)?)
        .with_context(|| place.display().to_string())?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{document}")?;
    } else {
        report.print(&mut out)?;
        writeln!(out, "report      {}", place.display())?;
        writeln!(
            out,
            "next        varve restore release {}: retention and compaction as they were",
            path.display()
        )?;
    }
    Ok(if report.is_clean() { Verdict::Clean } else { Verdict::Findings })
}

/// What a plan says, and the comparison behind it.
pub(crate) async fn carry_out(
    plan: &Plan,
    path: &Path,
    source: &Source,
    ends: &Ends,
    how: &HowArgs,
) -> Result<CarriedOut> {
    let reach = reach(how, &plan.target.bootstrap_servers)?;
    let listen = match how.listen {
        Some(listen) => listen,
        None => SocketAddr::new(local_address(&plan.target.bootstrap_servers)?, 0),
    };
    let names = plan.rest.users.iter().map(|user| user.name.as_str());
    let passwords = how.users.as_deref().map(|file| passwords(file, names)).transpose()?;
    let options = ApplyOptions {
        passwords: passwords.unwrap_or_default(),
        listen,
        reach,
        memory_bytes: how.memory,
        bytes_per_second: how.throttle,
        patience: how.patience,
    };
    let apply = Apply {
        plan,
        plan_file: path,
        source,
        keys: &ends.keys,
        client: &ends.client,
        controllers: ends.controllers.clone(),
        options,
        registry: ends.registry.as_ref(),
    };
    let started_ms = now_ms()?;
    let all = if plan.is_produced() { plan.totals.log_bytes } else { plan.totals.replica_bytes };
    let bar = progress::bytes("copying", all);
    let told = |stage: Stage| match stage {
        Stage::Schemas => bar.set_message("registering schemas"),
        Stage::Creating => bar.set_message("creating topics"),
        Stage::RaisingEpochs => bar.set_message("raising leader epochs"),
        Stage::Copying(at) => {
            bar.set_message(format!("copying, {} of {} partitions done", at.handed_over, at.partitions));
            bar.set_position(at.served_bytes);
        }
        Stage::Rest => bar.set_message("adding ACLs, quotas and configs"),
        Stage::Groups => bar.set_message("committing groups"),
    };
    let applied = apply.run(stopped(), &told).await;
    bar.finish_and_clear();
    let applied = applied?;
    let applied_ms = now_ms()?;
    let verified = match how.no_verify {
        true => None,
        false => {
            let bar = progress::bytes("verifying", plan.totals.log_bytes);
            let told = |bytes| bar.set_position(bytes);
            let verified = tokio::select! {
                verified = verify(plan, path, source, &ends.keys, &ends.client, &told) => verified,
                () = stopped() => bail!("stopped while verifying: varve restore verify {} does it again", path.display()),
            };
            bar.finish_and_clear();
            let mut verified = verified?;
            verified.findings.extend(schemas_differ(plan, path, source, ends).await?);
            Some(verified)
        }
    };
    Ok(CarriedOut { applied, verified, started_ms, applied_ms, ended_ms: now_ms()? })
}

async fn verify_file(args: PlannedArgs) -> Result<Verdict> {
    let plan = read(&args.plan)?;
    let ends = Ends::of(&plan, &args.access).await?;
    let source = ends.source(&plan).await?;
    let started_ms = now_ms()?;
    let bar = progress::bytes("verifying", plan.totals.log_bytes);
    let verified =
        verify(&plan, &args.plan, &source, &ends.keys, &ends.client, &|bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    let mut verified = verified?;
    verified.findings.extend(schemas_differ(&plan, &args.plan, &source, &ends).await?);
    let ended_ms = now_ms()?;
    let report = Report {
        plan: &plan,
        applied: None,
        verified: Some(&verified),
        started_ms,
        applied_ms: started_ms,
        ended_ms,
    };
    let mut out = std::io::stdout().lock();
    if args.access.json {
        writeln!(out, "{}", report.json())?;
    } else {
        report.print(&mut out)?;
    }
    Ok(if report.is_clean() { Verdict::Clean } else { Verdict::Findings })
}

/// Nothing of a plan without schemas.
async fn schemas_differ(plan: &Plan, path: &Path, source: &Source, ends: &Ends) -> Result<Vec<String>> {
    match schemas(plan, path, source, ends.registry.as_ref())? {
        Some(schemas) => Ok(schemas.differs().await?),
        None => Ok(Vec::new()),
    }
}

async fn clean(args: ChangeArgs) -> Result<Verdict> {
    let plan = read(&args.planned.plan)?;
    let ends = Ends::of(&plan, &args.planned.access).await?;
    let path = &args.planned.plan;
    let first = cleanup(&plan, path, &ends.client, ends.controllers.clone(), true).await?;
    let cleaned = match args.dry_run || !agreed(args.yes, &shown::cleanup_question(&first))? {
        true => first,
        false => {
            let cleaned = cleanup(&plan, path, &ends.client, ends.controllers.clone(), false).await?;
            put_modes_back(&plan, path, ends.registry.as_ref()).await?;
            cleaned
        }
    };
    let mut out = std::io::stdout().lock();
    if args.planned.access.json {
        let document = json!({
            "deleted": cleaned.topics,
            "kept": cleaned.kept,
            "unregistered": cleaned.is_unregistered,
        });
        writeln!(out, "{document}")?;
    } else {
        shown::cleaned(&cleaned, &mut out)?;
    }
    Ok(Verdict::Clean)
}

async fn released(args: ChangeArgs) -> Result<Verdict> {
    let plan = read(&args.planned.plan)?;
    let ends = Ends::of(&plan, &args.planned.access).await?;
    let all = releases(&plan, &ends.client, now_ms()?).await?;
    let mut out = std::io::stdout().lock();
    if args.planned.access.json {
        for one in &all {
            writeln!(out, "{}", shown::release_json(one))?;
        }
    } else {
        shown::releases(&all, &mut out)?;
    }
    drop(out);
    if args.dry_run || !agreed(args.yes, "Set these configs?")? {
        return Ok(Verdict::Clean);
    }
    release(&ends.client, &all).await?;
    if !args.planned.access.json {
        println!("released    {} topics", all.iter().filter(|one| one.are_configs_known).count());
    }
    Ok(Verdict::Clean)
}

/// How brokers come to us.
fn reach(how: &HowArgs, servers: &str) -> Result<Reach> {
    let advertised_host = match &how.advertise {
        Some(host) => host.clone(),
        None => local_address(servers)?.to_string(),
    };
    Ok(Reach { advertised_host, listener: listener_config(how.listener_config.as_deref())? })
}

fn read(path: &Path) -> Result<Plan> {
    let text = std::fs::read(path).with_context(|| format!("plan {}", path.display()))?;
    let version: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("plan {}", path.display()))?;
    let found = version["varve_restore_plan"].as_u64();
    if found != Some(u64::from(varve_restore::plan::PLAN_VERSION)) {
        bail!("plan {}: expected version 1, found {found:?}", path.display());
    }
    serde_json::from_value(version).with_context(|| format!("plan {}", path.display()))
}

/// A plan that is there is another restore's.
pub(crate) fn write_new(path: &Path, plan: &Plan) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    let mut file =
        options.write(true).create_new(true).open(path).with_context(|| path.display().to_string())?;
    file.write_all(&serde_json::to_vec_pretty(plan)?)?;
    Ok(file.sync_all()?)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn agreed(yes: bool, question: &str) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask on: say --yes");
    }
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let is_agreed = ["y", "yes"].contains(&line.trim().to_ascii_lowercase().as_str());
    if !is_agreed {
        println!("nothing was changed");
    }
    Ok(is_agreed)
}

/// Of ours, on the way to the first broker that can be reached.
fn local_address(servers: &str) -> Result<IpAddr> {
    let mut last = None;
    for server in servers.split(',') {
        for address in server.trim().to_socket_addrs().with_context(|| server.to_owned())? {
            match TcpStream::connect(address).and_then(|stream| stream.local_addr()) {
                Ok(local) => return Ok(local.ip()),
                Err(error) => last = Some(error),
            }
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| servers.to_owned()),
        None => bail!("{servers}: no address"),
    }
}
