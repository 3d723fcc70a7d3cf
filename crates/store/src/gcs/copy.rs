//! Copies by the store itself, in as many steps as it wants: each answer either holds the object or a token to go on
//! with.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;

use super::Inner;
use super::resource::{Object, encode};
use super::write::precondition;
use crate::contract::{Create, ObjectMeta, PutOptions, Result};
use crate::create::{Signed as _, new_id};
use crate::error::Kind;
use crate::failure::{At, Failure};
use crate::key::Key;

/// A store that gets on by 1 MiB a step needs so many for 5 TiB.
const STEPS_MAX: u32 = 5 << 20;
/// A step copies for half a minute or so before it answers.
const STEP_BYTES: u64 = 8 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Step {
    done: bool,
    rewrite_token: Option<String>,
    resource: Option<Object>,
}

pub(super) async fn copy(inner: &Inner, from: &Key, to: &Key, options: &PutOptions) -> Result<ObjectMeta> {
    let at = inner.at("copy", from.as_str());
    let source = inner.examine(from, None, &at).await?;
    let at = At { operation: at.operation, object: format!("{} to {to}", at.object) };
    let (full, id) = (inner.full(to, &at)?, new_id());
    let path = format!("{}/rewriteTo{}/o/{}", inner.object_path(from, &at)?, inner.bucket(), encode(&full));
    let about = inner.description(&full, &id, options).to_string();
    let generation = source.generation().to_string();
    let mut token: Option<String> = None;
    let mut in_doubt = false;
    for _ in 0..STEPS_MAX {
        let query = [
            // What was seen is copied, or nothing.
            ("sourceGeneration", Some(generation.as_str())),
            ("ifGenerationMatch", precondition(options.create)),
            ("destinationKmsKeyName", inner.config.kms_key.as_deref()),
            ("rewriteToken", token.as_deref()),
        ];
        let url = inner.url(&path, &query, &at)?;
        let request = || async {
            let call = inner.client.request(Method::POST, url.clone()).body(about.clone());
            let call = call.header(CONTENT_TYPE, "application/json; charset=utf-8");
            inner.client.ask::<Step>(call).await
        };
        let mut course = inner.retry.course();
        let step = loop {
            let failure = match course.attempt(STEP_BYTES, &request).await {
                Ok(step) => break step,
                Err(failure) => replaced(failure),
            };
            if options.create == Create::IfAbsent {
                in_doubt |= failure.ambiguous;
                if let Some(meta) = inner.settle(to, &id, &at, &mut course, failure, in_doubt).await? {
                    return Ok(meta);
                }
            } else if let Err(last) = course.again(failure, &at).await {
                return Err(last.error(&at, course.attempts));
            }
        };
        match step {
            Step { done: true, resource: Some(object), .. } => return done(inner, &object, &source, to, &at),
            Step { done: false, rewrite_token: Some(next), .. } => token = Some(next),
            _ => return Err(at.error(Kind::Other, "the answer holds neither an object nor a token")),
        }
    }
    Err(at.error(Kind::Other, format!("not done after {STEPS_MAX} steps")))
}

/// The source was there: what is not found is what was seen.
fn replaced(failure: Failure) -> Failure {
    if failure.kind != Kind::NotFound {
        return failure;
    }
    let detail = format!("the source was replaced while it was copied: {}", failure.detail);
    Failure { kind: Kind::Truncated, detail, ..failure }
}

fn done(inner: &Inner, object: &Object, source: &Object, to: &Key, at: &At) -> Result<ObjectMeta> {
    let same = source.crc32c().zip(object.crc32c()).is_none_or(|(source, copy)| source == copy);
    if object.size_bytes() != source.size_bytes() || !same {
        let (found, expected) = (object.size_bytes(), source.size_bytes());
        let detail =
            format!("the copy of {found} bytes is not the source of {expected}, or differs in its CRC32C");
        return Err(at.error(Kind::Truncated, detail));
    }
    Ok(object.meta(to.clone(), inner.keeps_versions()))
}
