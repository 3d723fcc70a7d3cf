//! `varve drill`: a restore into a broker that is thrown away.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use varve_cluster::Part;
use varve_format::Id;
use varve_kafka::replica::{Controller, ListenerConfig};
use varve_restore::drill::{DrillBroker, sampled};
use varve_restore::plan::{Plan, Reach, Wanted, plan};
use varve_restore::select::{Patterns, Selection};
use varve_restore::source::Source;

use super::restore::{CarriedOut, Ends, carry_out, sequence, write_new};
use crate::args::restore::{DrillArgs, HowArgs};
use crate::process::now_ms;
use crate::{Verdict, logging, progress};

/// A broker that is alone on its machine comes further, or never.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) async fn run(args: DrillArgs) -> Result<Verdict> {
    logging::of_command()?;
    let mut id = Id(*uuid::Uuid::new_v4().as_bytes());
    // Kafka's tools take an id that begins with a dash for an option.
    id.0[0] &= 0x7f;
    let parent = args.work.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("varve-drill-{id}"));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let started_ms = now_ms()?;
    let outcome = in_folder(&args, id, &dir).await;
    if args.keep {
        eprintln!("kept: {}", dir.display());
    } else {
        std::fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    }
    let (plan, outcome, all_topics) = outcome?;
    let report = outcome.report(&plan);
    let mut document = report.json();
    document["drill"] = json!({
        "started_ms": started_ms,
        "ended_ms": now_ms()?,
        "seed": args.seed,
        "sample_ppm": args.sample,
        "topics": plan.topics.len(),
        "topics_of_the_archive": all_topics,
    });
    if let Some(path) = &args.report {
        let text = serde_json::to_vec_pretty(&document)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let mut out = std::io::stdout().lock();
    if args.access.json {
        writeln!(out, "{document}")?;
    } else {
        writeln!(
            out,
            "drill       snapshot {} of {}, {} of {all_topics} topics, into a broker of its own",
            plan.archive.snapshot,
            plan.archive.url,
            plan.topics.len()
        )?;
        report.print(&mut out)?;
    }
    Ok(if report.is_clean() { Verdict::Clean } else { Verdict::Findings })
}

async fn in_folder(args: &DrillArgs, id: Id, dir: &Path) -> Result<(Plan, CarriedOut, usize)> {
    let bar = progress::unknown("starting a broker");
    let broker = DrillBroker::start(&args.kafka, dir, id, args.heap_mib).await;
    bar.finish_and_clear();
    let broker = broker?;
    let outcome = with_broker(args, id, dir, &broker).await;
    broker.stop().await;
    outcome
}

async fn with_broker(
    args: &DrillArgs,
    id: Id,
    dir: &Path,
    broker: &DrillBroker,
) -> Result<(Plan, CarriedOut, usize)> {
    let ends = Ends::open(&args.from, &broker.bootstrap_servers, &broker.controllers, &args.access).await?;
    let (topics, without) = (Patterns::new(&args.what.topics)?, Patterns::new(&args.what.without)?);
    let selection = Selection { topics, without, ..Selection::default() };
    let at = sequence(&ends.archive, args.what.at).await?;
    let mut source = Source::open(&ends.archive, at, |name| selection.has_topic(name)).await?;
    let all_topics = source.topics.len();
    let living = source.topics.iter().filter(|t| !t.is_deleted).map(|t| t.name.as_str());
    let drawn = sampled(living, args.sample, args.seed);
    source.topics.retain(|topic| drawn.contains(&topic.name));
    let wanted = Wanted {
        restore_id: id,
        now_ms: now_ms()?,
        archive_url: args.from.clone(),
        bootstrap_servers: broker.bootstrap_servers.clone(),
        controllers: broker.controllers.clone(),
        selection,
        replication_factor: Some(1),
        broker_id: None,
        parts: [Part::Groups].into_iter().collect(),
        mode: varve_restore::plan::Mode::Leader,
        filler_max: 0,
        into_its_source: false,
        reach: Reach { advertised_host: "127.0.0.1".to_owned(), listener: ListenerConfig::default() },
        skip_corrupt: false,
        schemas: None,
    };
    let controller = Controller::new(ends.controllers.clone())?;
    let made = plan(&source, &ends.keys, &ends.client, &controller, &wanted).await?;
    if let Some(refusal) = made.refusals.first() {
        bail!("{}: {}", refusal.what, refusal.todo);
    }
    let path = dir.join("drill.plan");
    write_new(&path, &made)?;
    let how = HowArgs {
        yes: true,
        throttle: None,
        memory: args.memory,
        advertise: None,
        listen: None,
        listener_config: None,
        users: None,
        patience: PATIENCE,
        no_verify: false,
        report: None,
    };
    let outcome = carry_out(&made, &path, &source, &ends, &how).await?;
    Ok((made, outcome, all_topics))
}
