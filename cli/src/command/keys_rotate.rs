//! `varve keys rotate`

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use varve_format::KeyRing;
use varve_keys::{KeyUrl, Service};
use zeroize::Zeroizing;

use crate::Verdict;
use crate::args::keys::RotateArgs;
use crate::keys::{agreed, random_key, ring_file};

pub(crate) fn run(args: &RotateArgs) -> Result<Verdict> {
    if let Some(kek) = &args.to {
        return configure(&KeyUrl::configured(kek)?, args.json);
    }
    let path = args.key_ring.as_deref().context("--key-ring is needed")?;
    let before = ring_file::read(path)?;
    let was = before.active().to_owned();
    // What it would come to, without a key that counts.
    let planned = changed(before, args, Zeroizing::new([0; 32]))?;
    let question = question(args, path, planned.active());
    if args.dry_run {
        return told(args, path, &was, &planned, true);
    }
    if !args.yes && !agreed(&question)? {
        return Ok(Verdict::Clean);
    }
    let secret = random_key()?;
    let ring = ring_file::replace(path, |ring| changed(ring, args, secret))?;
    told(args, path, &was, &ring, false)
}

fn changed(ring: KeyRing, args: &RotateArgs, secret: Zeroizing<[u8; 32]>) -> Result<KeyRing> {
    Ok(match (&args.new_id, &args.activate) {
        (Some(id), _) => {
            let ring = ring.with_key(id, secret)?;
            if args.keep_active { ring } else { ring.with_active(id)? }
        }
        (None, Some(id)) => ring.with_active(id)?,
        (None, None) => ring,
    })
}

fn question(args: &RotateArgs, path: &Path, active: &str) -> String {
    let path = path.display();
    match &args.new_id {
        Some(id) if args.keep_active => format!("Add a key {id} to {path}?"),
        Some(id) => format!("Add a key {id} to {path} and make it the active one?"),
        None => format!("Make {active} the active key of {path}?"),
    }
}

fn told(args: &RotateArgs, path: &Path, was: &str, ring: &KeyRing, is_dry: bool) -> Result<Verdict> {
    if args.json {
        let line = json!({
            "key_ring": path.display().to_string(),
            "active_before": was,
            "active": ring.active(),
            "added": args.new_id,
            "ids": ring.ids().collect::<Vec<_>>(),
            "dry_run": is_dry,
        });
        println!("{line}");
        return Ok(Verdict::Clean);
    }
    let would = if is_dry { "would be " } else { "" };
    if let Some(id) = &args.new_id {
        println!("added       {would}{id}");
    }
    println!("active      {would}{} (it was {was})", ring.active());
    println!("ids         {}", ring.ids().collect::<Vec<_>>().join(", "));
    let active = ring.active();
    let steps = match (&args.new_id, args.keep_active) {
        (Some(id), true) => [
            "put the file on every broker and archiver, and restart them: they can read what the new key wraps then".to_owned(),
            format!("then on each: varve keys rotate --key-ring FILE --activate {id}, and restart it"),
        ],
        _ => [
            "put the same file on every broker and archiver, keep a copy of it offline, and restart them".to_owned(),
            format!("varve keys rewrap URL --to ring:{active} for what was written before; until it is done, the other keys must stay in the ring"),
        ],
    };
    for step in steps {
        println!("next        {step}");
    }
    Ok(Verdict::Clean)
}

/// A key of a key service: nothing is ours to change.
fn configure(kek: &KeyUrl, json: bool) -> Result<Verdict> {
    let of_service = match kek.service() {
        Service::Ring => {
            "a key of a file key ring is changed in its file: varve keys rotate --key-ring FILE --new-id ID"
        }
        Service::AwsKms => {
            "AWS rotates the material of a key by itself (EnableKeyRotation), and opens with the former too: nothing is \
             to be configured for that. An alias is no name to be trusted by: name the key by its ARN"
        }
        Service::GcpKms => {
            "Google wraps with the primary version of a key and opens with the one that wrapped: for a new version \
             nothing is to be configured. Disable or destroy a former one only after varve keys rewrap --again"
        }
        Service::AzureKms => {
            "Azure wraps with the newest version of a key if none is named: for a new version nothing is to be \
             configured. Disable a former one only after varve keys rewrap"
        }
        Service::Vault => {
            "Vault and OpenBao wrap with the newest version of a key (vault write -f MOUNT/keys/KEY/rotate): for that \
             nothing is to be configured. Raise min_decryption_version only after varve keys rewrap"
        }
    };
    let settings = [
        ("encryption.key", kek.as_str().to_owned()),
        ("encryption.trusted.keys", "what encryption.key names now, beside what is in it".to_owned()),
    ];
    let steps = [
        "give brokers and archivers the right to wrap and unwrap with the new key; they keep that to unwrap with the old one".to_owned(),
        "set encryption.trusted.keys on all of them to the new key too, and restart them: they can read what it wraps then".to_owned(),
        "set encryption.key to the new key, keep the old one in encryption.trusted.keys, and restart them: a topic's new data keys are wrapped by it".to_owned(),
        format!("varve keys rewrap URL --to {kek} --kek OLD-KEY wraps the data keys from before; varve keys audit tells what is left"),
        "then the old key may go from encryption.trusted.keys, and, once no copy of this store needs it, from the service".to_owned(),
    ];
    if json {
        let settings: serde_json::Map<String, serde_json::Value> =
            settings.into_iter().map(|(k, v)| (k.to_owned(), v.into())).collect();
        println!("{}", json!({"to": kek.as_str(), "settings": settings, "steps": steps, "note": of_service}));
        return Ok(Verdict::Clean);
    }
    println!("note        {of_service}");
    if kek.service() != Service::Ring {
        println!("to change to another key:");
        for (number, step) in (1..).zip(&steps) {
            println!("  {number}. {step}");
        }
        for (name, value) in settings {
            println!("{name} = {value}");
        }
    }
    Ok(Verdict::Clean)
}
