//! `varve restore` of an archive some of whose objects must be thawed before they can be read.

use anyhow::{Context, Result, ensure};
use aws_sdk_s3::types::StorageClass;
use varve_tests::{
    Archived, Bucket, Cluster, MINIO_PASSWORD, MINIO_REGION, MINIO_USER, Moto, StoreKind, Suite, USUAL,
    ended, has_left, restore_from, write_usual,
};

const BUCKET: &str = "cold";
const COLD: &str = "plain";

pub(crate) fn suite() -> Suite {
    Suite::new()
        .only_on(&[StoreKind::File, StoreKind::S3], "it is about S3")
        .test("what_is_cold_is_told_before_and_restored_when_it_is_thawed", cold)
}

fn cold() -> Result<()> {
    let source = Cluster::builder().start()?;
    write_usual(&source)?;
    let archived = Archived::of(&source, &USUAL.map(|(topic, _)| topic))?;
    drop(source);
    let moto = Moto::start()?;
    let bucket = moto.bucket(BUCKET)?;
    let tier = archived.archive.tier();
    for key in tier.list()?.keys() {
        bucket.put(key, tier.read(key)?)?;
    }
    let frozen = freeze(&archived, &bucket)?;

    let settings = [
        format!("s3.endpoint.url=http://127.0.0.1:{}", moto.port),
        "s3.path.style=true".to_owned(),
        format!("s3.region={MINIO_REGION}"),
        format!("s3.access.key.id={MINIO_USER}"),
        format!("s3.secret.access.key={MINIO_PASSWORD}"),
    ];
    let access: Vec<&str> =
        settings.iter().flat_map(|setting| ["--store-config", setting.as_str()]).collect();
    let target = Cluster::builder().start()?;
    let restore = |name: &str, extra: &[&str]| {
        let plan = archived.plan(name);
        restore_from(&format!("s3://{BUCKET}"), &target, &plan, &[&access, extra].concat())
    };
    let refused = |name: &str| {
        let (_, err) = ended(restore(name, &[])?, 2)?;
        let bytes: u64 = frozen.iter().map(|(_, bytes)| bytes).sum();
        let told = format!("{} objects with {bytes} bytes are in a storage class", frozen.len());
        ensure!(err.contains(&told) && err.contains("GLACIER") && err.contains("thaw them"), "{err}");
        ensure!(err.contains(&format!("s3://{BUCKET}/topics/")), "{err}");
        ensure!(target.client().offset(COLD, 0, varve_tests::At::Latest).is_err(), "something was begun");
        Ok(())
    };
    refused("all-cold")?;
    // What is not cold can be had.
    ended(restore("others", &["--without", COLD, "--dry-run"])?, 0)?;
    let (last, others) = frozen.split_last().context("nothing is frozen")?;
    others.iter().try_for_each(|(key, _)| bucket.thaw(key))?;
    refused("one-is-cold")?;
    bucket.thaw(&last.0)?;
    ended(restore("thawed", &[])?, 0)?;
    archived.same(&target)?;
    has_left(&target)
}

/// The objects of one topic, and their lengths.
fn freeze(archived: &Archived, bucket: &Bucket) -> Result<Vec<(String, u64)>> {
    let topic = archived.logs.iter().find(|logs| logs.topic == COLD).context("no such topic")?;
    let prefix = format!("topics/{}/", topic.topic_id);
    let all = bucket.list()?;
    let frozen: Vec<_> = all.into_iter().filter(|(key, _)| key.starts_with(&prefix)).collect();
    let objects: Vec<_> = frozen.into_iter().filter(|(key, _)| key.ends_with(".varve")).collect();
    ensure!(objects.len() > 3, "{objects:?}");
    objects.iter().try_for_each(|(key, _)| bucket.set_class(key, StorageClass::Glacier))?;
    Ok(objects)
}
