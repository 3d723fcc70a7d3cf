//! Checks of uploads in parts.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};

use super::checks::means;
use super::{Checked, Flaw, Room, expect, expect_kind, if_absent, pattern};
use crate::contract::{GetRange, PutOptions, Upload};
use crate::error::Kind;
use crate::key::Key;

type Begun = (Key, Arc<dyn Upload>, usize);

/// An upload in the smallest parts that the store takes, but not absurdly small ones.
async fn begin(room: &Room, name: &str, options: &PutOptions) -> Result<Begun, Flaw> {
    let key = room.key(name)?;
    let part_bytes = room.store.limits().min_part_bytes.max(64 << 10);
    let upload = room.store.upload(&key, part_bytes, None, options).await?;
    Ok((key, upload, part_bytes as usize))
}

fn part(body: &Bytes, part_bytes: usize, number: u32) -> Bytes {
    let start = part_bytes * (number as usize - 1);
    body.slice(start..body.len().min(start + part_bytes))
}

pub(super) async fn in_order(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "ordered", &PutOptions::default()).await?;
    let body = pattern(1, part_bytes + 1);
    for number in 1..=2 {
        upload.put_part(number, part(&body, part_bytes, number)).await?;
    }
    let meta = upload.complete().await?;
    expect(meta.key == key && meta.size_bytes == body.len() as u64, || {
        format!(
            "complete says {} has {} bytes, expected {key} with {}",
            meta.key,
            meta.size_bytes,
            body.len()
        )
    })?;
    room.expect_body(&key, &body).await?;
    let tail = room.read(&key, GetRange::Suffix(10)).await?;
    expect(tail == body.slice(body.len() - 10..), || "a range across parts delivers other bytes".to_owned())
}

pub(super) async fn out_of_order(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "mixed", &PutOptions::default()).await?;
    let body = pattern(2, 3 * part_bytes + 77);
    try_join_all([4, 2, 3, 1].map(|number| upload.put_part(number, part(&body, part_bytes, number)))).await?;
    upload.complete().await?;
    room.expect_body(&key, &body).await
}

pub(super) async fn replaced_part(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "replaced", &PutOptions::default()).await?;
    let body = pattern(3, part_bytes + 100);
    upload.put_part(1, pattern(4, part_bytes)).await?;
    if room.store.limits().creates_hold_parts.is_some() {
        let again = upload.put_part(1, part(&body, part_bytes, 1)).await;
        upload.abort().await?;
        return expect_kind("another body for a part that was sent on", Kind::Unsupported, again);
    }
    upload.put_part(2, pattern(5, 5000)).await?;
    upload.put_part(2, part(&body, part_bytes, 2)).await?;
    upload.put_part(1, part(&body, part_bytes, 1)).await?;
    upload.complete().await?;
    room.expect_body(&key, &body).await
}

pub(super) async fn single_short_part(room: Room) -> Checked {
    let (key, upload, _) = begin(&room, "short", &PutOptions::default()).await?;
    let body = pattern(6, 10);
    upload.put_part(1, body.clone()).await?;
    upload.complete().await?;
    room.expect_body(&key, &body).await
}

pub(super) async fn missing_part(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "holed", &PutOptions::default()).await?;
    expect_kind("completing without a part", Kind::Invalid, upload.complete().await)?;
    upload.put_part(2, pattern(7, 10)).await?;
    expect_kind("completing without part 1", Kind::Invalid, upload.complete().await)?;
    expect_kind("part 0", Kind::Invalid, upload.put_part(0, pattern(7, 10)).await)?;
    expect_kind("an empty part", Kind::Invalid, upload.put_part(1, Bytes::new()).await)?;
    expect_kind("a part too long", Kind::Invalid, upload.put_part(1, pattern(8, part_bytes + 1)).await)?;
    upload.abort().await?;
    expect_kind("head", Kind::NotFound, room.store.head(&key).await)
}

pub(super) async fn invisible(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "unseen", &PutOptions::default()).await?;
    upload.put_part(1, pattern(9, part_bytes)).await?;
    expect_kind("head before complete", Kind::NotFound, room.store.head(&key).await)?;
    expect_kind("get before complete", Kind::NotFound, room.read(&key, GetRange::Full).await)?;
    let seen = room.store.list(&room.folder, None, 10).await?.objects.len();
    expect(seen == 0, || format!("a listing before complete shows {seen} objects"))?;
    upload.complete().await?;
    let seen = room.store.list(&room.folder, None, 10).await?.objects.len();
    expect(seen == 1, || format!("a listing after complete shows {seen} objects, expected 1"))
}

pub(super) async fn abort(room: Room) -> Checked {
    let (key, upload, part_bytes) = begin(&room, "dropped", &PutOptions::default()).await?;
    upload.put_part(1, pattern(10, part_bytes)).await?;
    upload.abort().await?;
    upload.abort().await?;
    expect_kind("head after abort", Kind::NotFound, room.store.head(&key).await)?;
    let pending = room.pending().await?;
    expect(pending.is_empty(), || format!("still pending after abort: {pending:?}"))?;
    expect(upload.complete().await.is_err(), || "an aborted upload can be completed".to_owned())?;
    expect_kind("head after complete", Kind::NotFound, room.store.head(&key).await)
}

pub(super) async fn abort_after_complete(room: Room) -> Checked {
    let (key, upload, _) = begin(&room, "kept", &PutOptions::default()).await?;
    let body = pattern(11, 100);
    upload.put_part(1, body.clone()).await?;
    upload.complete().await?;
    upload.abort().await?;
    room.expect_body(&key, &body).await
}

/// A store that forgets them by itself lists none, and has nothing to prove.
pub(super) async fn listed(room: Room) -> Checked {
    if !room.store.limits().lists_uploads {
        return Ok(());
    }
    room.store.list_uploads(&room.folder).await?;
    // A long key, as those of deep archives are.
    let long = format!("pending/{}/{}", "k".repeat(200), "l".repeat(200));
    let (key, upload, part_bytes) = begin(&room, &long, &PutOptions::default()).await?;
    upload.put_part(1, pattern(12, part_bytes)).await?;
    let (other_key, other, _) = begin(&room, "other", &PutOptions::default()).await?;
    let pending = room.store.list_uploads(&room.folder).await?;
    expect(pending.iter().any(|p| p.key == key) && pending.iter().any(|p| p.key == other_key), || {
        format!(
            "two uploads are pending, listed are {pending:?}: a sweep would not find what a crash leaves behind"
        )
    })?;
    let narrower = room.store.list_uploads(&format!("{}pending/", room.folder)).await?;
    expect(narrower.len() == 1 && narrower[0].key == key, || format!("by prefix found {narrower:?}"))?;
    for pending in &pending {
        room.store.abort_upload(pending).await?;
        room.store.abort_upload(pending).await?;
    }
    let left = room.store.list_uploads(&room.folder).await?;
    expect(left.is_empty(), || format!("still pending after abort: {left:?}"))?;
    other.abort().await?;
    expect(upload.complete().await.is_err(), || {
        "an upload that was aborted from outside can be completed".to_owned()
    })
}

pub(super) async fn complete_if_absent(room: Room) -> Checked {
    let (key, upload, _) = begin(&room, "once", &if_absent()).await?;
    let (first, second) = (pattern(13, 100), pattern(14, 100));
    upload.put_part(1, first.clone()).await?;
    upload.complete().await?;
    let (_, upload, _) = begin(&room, "once", &if_absent()).await?;
    upload.put_part(1, second).await?;
    expect_kind("completing over what exists", Kind::AlreadyExists, upload.complete().await)?;
    let meaning = "an upload that is refused or taken back destroys what was there";
    room.expect_body(&key, &first).await.map_err(|flaw| means(flaw, meaning))?;
    upload.abort().await?;
    room.expect_body(&key, &first).await.map_err(|flaw| means(flaw, meaning))?;
    let pending = room.pending().await?;
    expect(pending.is_empty(), || format!("still pending after abort: {pending:?}"))
}

pub(super) async fn complete_race(room: Room) -> Checked {
    // A server that looks before it writes loses not every time.
    for round in 0..4 {
        race(&room, round).await?;
    }
    Ok(())
}

async fn race(room: &Room, round: u64) -> Checked {
    let name = format!("raced-{round}");
    let key = room.key(&name)?;
    let bodies: Vec<Bytes> = (0..8).map(|writer| pattern(20 + 8 * round + writer, 3000)).collect();
    let options = if_absent();
    let mut uploads = Vec::new();
    for body in &bodies {
        let (_, upload, _) = begin(room, &name, &options).await?;
        upload.put_part(1, body.clone()).await?;
        uploads.push(upload);
    }
    let outcomes = join_all(uploads.iter().map(|upload| upload.complete())).await;
    let winners: Vec<usize> = (0..bodies.len()).filter(|&writer| outcomes[writer].is_ok()).collect();
    for outcome in outcomes {
        if outcome.is_err() {
            expect_kind("a losing upload", Kind::AlreadyExists, outcome)?;
        }
    }
    for upload in uploads {
        upload.abort().await?;
    }
    expect(winners.len() == 1, || {
        format!("{} of 8 racing uploads created the object, expected 1", winners.len())
    })?;
    room.expect_body(&key, &bodies[winners[0]]).await
}
