//! The Schema Registry's subjects, restored: with their ids where a registry has an import mode, by a map of ids where
//! it has none; into one that has some already; after a kill too.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use url::Url;
use varve_cluster::{RegistrySettings, SchemaRegistry, SchemaState, SchemaVersion, read_registry};
use varve_tests::{
    Cluster, Import, Registry, Scratch, Shared, Suite, TestArchive, ended, of_plan, runtime, varve,
};

const TOPIC: &str = "orders";
const MONEY: &str =
    r#"{"type":"record","name":"Money","namespace":"shop","fields":[{"name":"cents","type":"long"}]}"#;
const ORDER: &str =
    r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"price","type":"shop.Money"}]}"#;
const WIDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[{"name":"price","type":"shop.Money"},{"name":"n","type":"int","default":0}]}"#;
const POINT: &str = "syntax = \"proto3\";\nmessage P { string a = 1; }\n";
const LINE: &str = "syntax = \"proto3\";\nimport \"p.proto\";\nmessage Q { P p = 1; }\n";
/// Of the archive, with the deleted ones.
const VERSIONS: u64 = 10;
/// For each registration, where one is to be interrupted.
const SLOWLY: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn suite() -> Suite {
    let shared = Shared::new(Scene::make);
    Suite::new()
        .test_with(&shared, "ids_are_kept_in_import_mode", kept)
        .test_with(&shared, "without_import_mode_it_is_refused_or_mapped", mapped)
        .test_with(&shared, "what_is_there_stays_and_conflicts_are_refused", there)
        .test_with(&shared, "a_kill_in_the_midst_is_resumed_or_taken_back", killed)
        .test_with(&shared, "a_registry_that_ignores_ids_is_found_out", ignored)
}

/// The archive of a cluster and a registry, and an empty cluster.
struct Scene {
    source: SchemaState,
    archive: TestArchive,
    target: Cluster,
    scratch: Scratch,
}

impl Scene {
    fn make() -> Result<Self> {
        let cluster = Cluster::builder().start()?;
        cluster.client().create_topic(TOPIC, 1, 1, &[])?;
        let registry = filled()?;
        let scratch = Scratch::new("restore-schemas")?;
        let extra =
            format!("topics: {{ include: [\"*\"] }}\nschema.registry: {{ url: \"{}\" }}", registry.url());
        let archive = TestArchive::new(scratch.path(), &cluster.bootstrap(), &extra)?;
        archive.run_once(&[])?;
        let source = state(&registry)?;
        drop(cluster);
        Ok(Self { source, archive, target: Cluster::builder().start()?, scratch })
    }

    fn plan(&self, name: &str) -> PathBuf {
        self.scratch.path().join(format!("{name}.plan"))
    }

    /// The topic gets the name of the plan, so that one cluster does for all.
    fn restore(&self, name: &str, registry: &str, extra: &[&str]) -> Result<Command> {
        let mut command = varve()?;
        command.args(["restore", "--from", &self.archive.url(), "--to", &self.target.bootstrap()]);
        command.args(["--controller", &self.target.controllers(), "--yes", "--no-verify"]);
        command.args(["--rename", &format!("{TOPIC}={name}"), "--schema-registry", registry]);
        command.arg("--plan").arg(self.plan(name)).args(extra);
        Ok(command)
    }
}

/// References of two types, several versions, one schema in two subjects, deleted versions and subjects, holes in ids
/// and versions, settings.
fn filled() -> Result<Registry> {
    let registry = Registry::start()?;
    let refers = |name: &str, subject: &str| json!([{ "name": name, "subject": subject, "version": 1 }]);
    // In an alphabet's order what refers would come before.
    registry.register("zz-money", &json!({ "schema": MONEY }))?;
    registry
        .register("an-order", &json!({ "schema": ORDER, "references": refers("shop.Money", "zz-money") }))?;
    registry.register("holes", &json!({ "schema": "\"string\"" }))?;
    registry.register("holes", &json!({ "schema": "\"long\"" }))?;
    registry.delete("holes/versions/1")?;
    registry.delete("holes/versions/1?permanent=true")?;
    registry
        .register("an-order", &json!({ "schema": WIDER, "references": refers("shop.Money", "zz-money") }))?;
    registry.register("copy-of-money", &json!({ "schema": MONEY }))?;
    registry.register("p", &json!({ "schemaType": "PROTOBUF", "schema": POINT }))?;
    let line = json!({ "schemaType": "PROTOBUF", "schema": LINE, "references": refers("p.proto", "p") });
    registry.register("line", &line)?;
    registry.register("j", &json!({ "schemaType": "JSON", "schema": r#"{"type":"object"}"# }))?;
    registry.register("gone", &json!({ "schema": "\"bytes\"" }))?;
    registry.register("gone", &json!({ "schema": "\"boolean\"" }))?;
    registry.delete("an-order/versions/1")?;
    registry.delete("gone")?;
    registry.set_compatibility("", "FULL_TRANSITIVE")?;
    registry.set_compatibility("an-order", "FORWARD")?;
    registry.set_mode("line", "READONLY")?;
    Ok(registry)
}

fn state(registry: &Registry) -> Result<SchemaState> {
    let client = SchemaRegistry::new(RegistrySettings::new(Url::parse(&registry.url())?))?;
    runtime()?.block_on(read_registry(&client)).map_err(anyhow::Error::msg)
}

fn versions(state: &SchemaState) -> impl Iterator<Item = (&str, &SchemaVersion)> {
    state.subjects.iter().flat_map(|s| s.versions.iter().map(move |v| (s.subject.as_str(), v)))
}

fn report(out: &str) -> Result<Value> {
    serde_json::from_str(out).with_context(|| out.to_owned())
}

fn kept(scene: &Scene) -> Result<()> {
    let mut without = varve()?;
    without.args(["restore", "--from", &scene.archive.url(), "--to", &scene.target.bootstrap()]);
    without.args(["--controller", &scene.target.controllers(), "--dry-run", "--plan"]);
    without.arg(scene.plan("without"));
    let (out, _) = ended(without, 0)?;
    ensure!(out.contains("8 subjects of the Schema Registry are not restored: --schema-registry"), "{out}");

    let registry = Registry::with(Import::Kept, Duration::ZERO)?;
    let login = scene.scratch.path().join("login");
    let lines = format!(
        "schema.registry.user={}\nschema.registry.password={}\nschema.registry.ca.file={}\n",
        Registry::USER,
        Registry::PASSWORD,
        registry.ca_file().display()
    );
    std::fs::write(&login, lines)?;
    let config = ["--schema-registry-config", &login.display().to_string()];
    let url = format!("https://127.0.0.1:{}", registry.secure_port);
    let (out, _) = ended(scene.restore("kept-dry", &url, &[&config[..], &["--dry-run"]].concat())?, 0)?;
    for line in ["10 versions to register with their ids", "+ zz-money", "+ mode of line: READONLY"] {
        ensure!(out.contains(line), "{line}: {out}");
    }
    ensure!(versions(&state(&registry)?).count() == 0, "a dry run changed it");
    let (out, _) = ended(scene.restore("kept", &url, &[&config[..], &["--json"]].concat())?, 0)?;
    let schemas = &report(&out)?["applied"]["schemas"];
    ensure!(schemas["registered"] == VERSIONS && schemas["ids"] == json!([]), "{out}");
    let restored = state(&registry)?;
    ensure!(restored == scene.source, "{restored:#?}\nis not\n{:#?}", scene.source);
    ended(of_plan("verify", &scene.plan("kept"), &config)?, 0)?;

    // A second time there is nothing to do, also for a new plan.
    let again = [&config[..], &["--yes", "--no-verify", "--json"]].concat();
    let (out, _) = ended(of_plan("apply", &scene.plan("kept"), &again)?, 0)?;
    ensure!(report(&out)?["applied"]["schemas"]["registered"] == 0, "{out}");
    let (out, _) = ended(scene.restore("kept-again", &url, &[&config[..], &["--dry-run"]].concat())?, 0)?;
    ensure!(out.contains("0 versions to register with their ids, 10 there already"), "{out}");

    registry.set_compatibility("an-order", "NONE")?;
    registry.set_mode("p", "READONLY")?;
    registry.delete("j/versions/1")?;
    let (out, _) = ended(of_plan("verify", &scene.plan("kept"), &config)?, 1)?;
    ensure!(out.contains("compatibility of subject an-order: expected FORWARD, found NONE"), "{out}");
    ensure!(out.contains("schema j:1") && out.contains("is deleted in the Schema Registry"), "{out}");
    Ok(())
}

fn mapped(scene: &Scene) -> Result<()> {
    let registry = Registry::start()?;
    registry.register("its-own", &json!({ "schema": "\"float\"" }))?;
    registry.register("p", &json!({ "schemaType": "PROTOBUF", "schema": POINT }))?;
    let before = state(&registry)?;
    let (out, _) = ended(scene.restore("refused", &registry.url(), &["--dry-run"])?, 1)?;
    ensure!(out.contains("has no mode IMPORT") && out.contains("--schema-ids-may-change"), "{out}");
    ended(scene.restore("refused-2", &registry.url(), &[])?, 2)?;
    ensure!(state(&registry)? == before, "a refusal changed it");

    let change = ["--schema-ids-may-change"];
    let dry = [change[0], "--dry-run"];
    let (out, _) = ended(scene.restore("mapped-dry", &registry.url(), &dry)?, 0)?;
    ensure!(out.contains("THE IDS OF 10 SCHEMAS CHANGE") && out.contains("WITH NEW IDS"), "{out}");
    let (out, _) = ended(scene.restore("mapped", &registry.url(), &[change[0], "--json"])?, 0)?;
    let schemas = report(&out)?["applied"]["schemas"].clone();
    ensure!(schemas["registered"] == VERSIONS - 1 && schemas["there_before"] == 1, "{out}");
    let file = scene.plan("mapped.plan.schema-ids").with_extension("json");
    let ids: Vec<Value> = serde_json::from_slice(&std::fs::read(&file)?)?;
    ensure!(schemas["ids"] == json!(ids) && ids.len() as u64 == VERSIONS, "{schemas}");
    let restored = state(&registry)?;
    for (subject, version) in versions(&scene.source) {
        let is_it = |m: &&Value| m["subject"] == subject && m["version"] == version.version;
        let mapped = ids.iter().find(is_it).with_context(|| format!("no {subject}:{}", version.version))?;
        ensure!(mapped["id"] == version.id, "{mapped}");
        let here = versions(&restored)
            .find(|(s, v)| *s == subject && mapped["new_version"] == v.version)
            .with_context(|| format!("nothing is {mapped}"))?
            .1;
        ensure!(mapped["new_id"] == here.id && here.schema == version.schema, "{mapped}: {here:?}");
        ensure!(here.deleted == version.deleted, "{mapped}: {here:?}");
    }
    ensure!(ids.iter().any(|m| m["id"] != m["new_id"]), "all ids stayed by chance");
    ended(of_plan("verify", &scene.plan("mapped"), &[])?, 0)?;
    // Of a registry that is not empty the settings stay.
    ensure!(restored.config == before.config, "{:?}", restored.config);
    std::fs::remove_file(&file)?;
    let (out, _) = ended(of_plan("verify", &scene.plan("mapped"), &[])?, 1)?;
    ensure!(out.contains("is not in the map of ids"), "{out}");
    Ok(())
}

fn there(scene: &Scene) -> Result<()> {
    let registry = Registry::with(Import::Kept, Duration::ZERO)?;
    let url = registry.url();
    let lacking = ["--subjects", "an-order", "--dry-run"];
    let (out, _) = ended(scene.restore("lacking", &url, &lacking)?, 1)?;
    ensure!(out.contains("an-order:1 refers to zz-money:1") && out.contains("--subjects"), "{out}");
    let only = ["--parts", "groups"];
    let (_, err) = ended(scene.restore("parts", &url, &only)?, 2)?;
    ensure!(err.contains("not among --parts"), "{err}");

    ended(scene.restore("some", &url, &["--subjects", "zz-*,p"])?, 0)?;
    let subjects: Vec<String> = state(&registry)?.subjects.into_iter().map(|s| s.subject).collect();
    ensure!(subjects == ["p", "zz-money"], "{subjects:?}");
    registry.set_compatibility("p", "NONE")?;
    let (out, _) = ended(scene.restore("rest", &url, &["--json"])?, 0)?;
    ensure!(report(&out)?["applied"]["schemas"]["registered"] == VERSIONS - 2, "{out}");
    let (ours, theirs) = (state(&registry)?, &scene.source);
    ensure!(versions(&ours).eq(versions(theirs)), "{ours:#?}\nis not\n{theirs:#?}");
    let level = |subject: &Value| subject["compatibilityLevel"].clone();
    ensure!(level(&registry.get("/config/p")?) == "NONE", "its own compatibility is gone");

    // Another schema under the version, and under the id.
    let conflicting = Registry::with(Import::Kept, Duration::ZERO)?;
    conflicting.register("filler", &json!({ "schema": "\"double\"" }))?;
    conflicting.register("an-order", &json!({ "schema": "\"float\"" }))?;
    let before = state(&conflicting)?;
    let (out, _) = ended(scene.restore("conflict", &conflicting.url(), &["--dry-run"])?, 1)?;
    ensure!(out.contains("in the Schema Registry an-order:1 (id 2) is another schema"), "{out}");
    ensure!(out.contains("id 1 is another schema, filler:1"), "{out}");
    ended(scene.restore("conflict-2", &conflicting.url(), &[])?, 2)?;
    ensure!(state(&conflicting)? == before, "a refusal changed it");
    Ok(())
}

/// When two more versions are there than before, and another is on its way: its subject is in import mode.
fn half_way(registry: &Registry, mut command: Command, signal: i32) -> Result<()> {
    let done = versions(&state(registry)?).count();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let begun = Instant::now();
    let pid = i32::try_from(child.id())?;
    let send = |signal| {
        // SAFETY: a signal to a child of ours that was not waited for.
        ensure!(unsafe { libc::kill(pid, signal) } == 0, "no signal");
        Ok(())
    };
    loop {
        ensure!(begun.elapsed() < LIMIT && child.try_wait()?.is_none(), "it did not come to a half");
        std::thread::sleep(Duration::from_millis(20));
        if versions(&state(registry)?).count() < done + 2 {
            continue;
        }
        // It stands still: what is seen now is so when the signal comes.
        send(libc::SIGSTOP)?;
        std::thread::sleep(Duration::from_millis(50));
        if !importing(registry)?.is_empty() {
            break;
        }
        send(libc::SIGCONT)?;
    }
    send(signal)?;
    send(libc::SIGCONT)?;
    child.wait()?;
    Ok(())
}

/// Subjects in import mode.
fn importing(registry: &Registry) -> Result<Vec<String>> {
    let open = state(registry)?.subjects.into_iter().filter(|s| s.mode.as_deref() == Some("IMPORT"));
    Ok(open.map(|s| s.subject).collect())
}

fn killed(scene: &Scene) -> Result<()> {
    let registry = Registry::with(Import::Kept, SLOWLY)?;
    half_way(&registry, scene.restore("killed", &registry.url(), &[])?, libc::SIGKILL)?;
    ensure!(importing(&registry)?.len() == 1, "it was not in the midst: {:?}", importing(&registry)?);
    ended(of_plan("cleanup", &scene.plan("killed"), &["--yes"])?, 0)?;
    ensure!(importing(&registry)?.is_empty(), "not taken back: {:?}", importing(&registry)?);

    let registry = Registry::with(Import::Kept, SLOWLY)?;
    half_way(&registry, scene.restore("stopped", &registry.url(), &[])?, libc::SIGTERM)?;
    ensure!(importing(&registry)?.is_empty(), "not put back: {:?}", importing(&registry)?);
    half_way(&registry, of_plan("apply", &scene.plan("stopped"), &["--yes"])?, libc::SIGKILL)?;
    let (out, _) = ended(of_plan("apply", &scene.plan("stopped"), &["--yes", "--json"])?, 0)?;
    let report = report(&out)?;
    ensure!(report["is_clean"] == true && report["applied"]["schemas"]["registered"] != 0, "{out}");
    ensure!(state(&registry)? == scene.source, "{:#?}", state(&registry)?);
    Ok(())
}

fn ignored(scene: &Scene) -> Result<()> {
    // The first ids are the archive's by chance; those behind its hole are not.
    let registry = Registry::with(Import::Ignored, Duration::ZERO)?;
    let (_, err) = ended(scene.restore("ignored", &registry.url(), &[])?, 2)?;
    ensure!(err.contains("does not keep ids") && err.contains("--schema-ids-may-change"), "{err}");
    let left: Vec<Option<String>> = state(&registry)?.subjects.into_iter().map(|s| s.mode).collect();
    ensure!(left.iter().all(Option::is_none), "{left:?}");
    Ok(())
}
