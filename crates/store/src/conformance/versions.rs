//! Checks of versions. A store that keeps none has nothing to prove.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Checked, Flaw, Room, expect, expect_kind, if_absent, pattern};
use crate::contract::{GetRange, delete};
use crate::error::Kind;
use crate::key::Key;
use crate::versions::{KeyVersions, Version, Versions};

async fn versions_of(
    versions: &Arc<dyn Versions>,
    key: &Key,
) -> std::result::Result<Option<KeyVersions>, Flaw> {
    let page = versions.list(key.as_str(), None, 1).await?;
    Ok(page.keys.into_iter().find(|found| found.key == *key))
}

/// Fails unless the versions are these, the oldest first: bodies, and `None` for a delete marker.
async fn expect_versions(versions: &Arc<dyn Versions>, key: &Key, expected: &[Option<&Bytes>]) -> Checked {
    let found = versions_of(versions, key).await?;
    let found = found.ok_or_else(|| Flaw(format!("no versions of {key}, expected {}", expected.len())))?;
    let shape = |v: &Version| (!v.delete_marker).then_some(v.size_bytes);
    let shown: Vec<_> = found.versions.iter().map(shape).collect();
    let wanted: Vec<_> = expected.iter().map(|body| body.map(|body| body.len() as u64)).collect();
    expect(shown == wanted && found.count == wanted.len() as u64, || {
        format!("versions of {key}: expected the sizes {wanted:?}, found {shown:?}, {} in all", found.count)
    })?;
    for (version, body) in found.versions.iter().zip(expected) {
        let Some(body) = body else {
            let read = versions.get(key, &version.id, GetRange::Full).await;
            expect(read.is_err(), || format!("a delete marker of {key} was read"))?;
            continue;
        };
        let got = versions.get(key, &version.id, GetRange::Full).await?;
        expect(got.version.as_deref() == Some(version.id.as_str()), || {
            format!("get of version {} of {key} says it is {:?}", version.id, got.version)
        })?;
        expect(got.bytes().await? == **body, || format!("version {} of {key} has other bytes", version.id))?;
        let range = GetRange::Bounded { start: 1, end: 3 };
        let part = versions.get(key, &version.id, range).await?.bytes().await?;
        expect(part == body.slice(1..3), || format!("a range of version {} of {key} differs", version.id))?;
        let head = versions.head(key, &version.id).await?;
        let told = (head.size_bytes, head.version.as_deref());
        expect(told == (body.len() as u64, Some(version.id.as_str())), || {
            format!("head of version {} of {key} says {told:?}", version.id)
        })?;
    }
    Ok(())
}

pub(super) async fn kept(room: Room) -> Checked {
    let Some(versions) = room.store.versions().await? else { return Ok(()) };
    let (first, second) = (pattern(1, 1000), pattern(2, 50));
    let key = room.key("kept")?;
    expect(versions_of(&versions, &key).await?.is_none(), || format!("{key} has versions from the start"))?;
    let put = room.store.put(&key, first.clone(), &Default::default()).await?;
    let got = room.store.get(&key, GetRange::Full).await?.version;
    expect(put.version.is_some() && put.version == got, || {
        format!("put says version {:?}, get {got:?}", put.version)
    })?;
    expect_versions(&versions, &key, &[Some(&first)]).await?;
    room.put("kept", &second).await?;
    expect_versions(&versions, &key, &[Some(&first), Some(&second)]).await?;
    delete(&*room.store, &key).await?;
    expect_versions(&versions, &key, &[Some(&first), Some(&second), None]).await?;
    expect_kind("head of no version", Kind::NotFound, room.store.head(&key).await)?;
    let oldest = put.version.unwrap_or_default();
    let past = versions.get(&key, &oldest, GetRange::From(1000)).await;
    expect_kind("bytes from the end of a version", Kind::InvalidRange, past)
}

pub(super) async fn under_a_marker(room: Room) -> Checked {
    let Some(versions) = room.store.versions().await? else { return Ok(()) };
    let (old, new) = (pattern(3, 300), pattern(4, 400));
    let key = room.put("hidden", &old).await?;
    delete(&*room.store, &key).await?;
    expect_kind("get", Kind::NotFound, room.read(&key, GetRange::Full).await)?;
    expect_kind("head", Kind::NotFound, room.store.head(&key).await)?;
    let listed = room.store.list(&room.folder, None, 10).await?;
    expect(listed.objects.is_empty() && !listed.more, || format!("{key} is listed under its marker"))?;
    // Cloud Storage has no markers, only times: those of a deletion and of what follows must differ by one of its
    // milliseconds.
    tokio::time::sleep(Duration::from_millis(5)).await;
    room.store.put(&key, new.clone(), &if_absent()).await?;
    room.expect_body(&key, &new).await?;
    expect_versions(&versions, &key, &[Some(&old), None, Some(&new)]).await
}

pub(super) async fn pages(room: Room) -> Checked {
    let Some(versions) = room.store.versions().await? else { return Ok(()) };
    let names = ["a", "a-", "a/b", "b", "c/d", "c0"];
    let mut expected = Vec::new();
    for (number, name) in names.iter().filter(|name| **name != "a").enumerate() {
        let key = room.key(name)?;
        for round in 0..=number {
            room.put(name, &pattern(round as u64, 10)).await?;
        }
        if number % 2 == 0 {
            delete(&*room.store, &key).await?;
        }
        expected.push((key, number as u64 + 1 + u64::from(number % 2 == 0)));
    }
    for max_keys in [1, 2, 1000] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = versions.list(&room.folder, after.as_ref(), max_keys).await?;
            expect(page.keys.len() <= max_keys, || {
                format!("{} keys, asked for {max_keys}", page.keys.len())
            })?;
            expect(!page.more || !page.keys.is_empty(), || "more, but no key to go on from".to_owned())?;
            after = page.keys.last().map(|found| found.key.clone());
            found.extend(page.keys.into_iter().map(|found| (found.key, found.count)));
            if !page.more || found.len() > expected.len() {
                break;
            }
        }
        expect(found == expected, || format!("pages of {max_keys}: expected {expected:?}, found {found:?}"))?;
    }
    let prefix = format!("{}c", room.folder);
    for (after, count) in [(None, 2), (Some("b0"), 2), (Some("c"), 2), (Some("c/d"), 1), (Some("d"), 0)] {
        let after = after.map(|name| room.key(name)).transpose()?;
        let page = versions.list(&prefix, after.as_ref(), 10).await?;
        expect(page.keys.len() == count && !page.more, || {
            format!("prefix c after {after:?} lists {} keys, expected {count}", page.keys.len())
        })?;
    }
    Ok(())
}

pub(super) async fn removed(room: Room) -> Checked {
    let Some(versions) = room.store.versions().await? else { return Ok(()) };
    let (first, second, third) = (pattern(5, 500), pattern(6, 60), pattern(9, 90));
    let key = room.put("removed", &first).await?;
    room.put("removed", &second).await?;
    delete(&*room.store, &key).await?;
    room.put("removed", &third).await?;
    let found = versions_of(&versions, &key).await?.map(|found| found.versions).unwrap_or_default();
    let [first_version, _, marker, third_version] = found.as_slice() else {
        return Err(Flaw(format!("{} versions of {key}, expected 4", found.len())));
    };
    for gone in [first_version, first_version, marker] {
        versions.delete(&key, &gone.id).await?;
    }
    expect(versions.get(&key, &first_version.id, GetRange::Full).await.is_err(), || {
        format!("a version of {key} that was deleted is read")
    })?;
    expect_versions(&versions, &key, &[Some(&second), Some(&third)]).await?;
    room.expect_body(&key, &third).await?;
    // The one before is the current one now.
    versions.delete(&key, &third_version.id).await?;
    room.expect_body(&key, &second).await?;
    let last = versions_of(&versions, &key).await?.map(|found| found.versions).unwrap_or_default();
    for version in last {
        versions.delete(&key, &version.id).await?;
    }
    expect(versions_of(&versions, &key).await?.is_none(), || format!("{key} has versions to the end"))?;
    expect_kind("head of nothing", Kind::NotFound, room.store.head(&key).await)
}

pub(super) async fn many(room: Room) -> Checked {
    let Some(versions) = room.store.versions().await? else { return Ok(()) };
    let (oldest, other) = (pattern(7, 100), pattern(8, 7));
    let key = room.put("many", &oldest).await?;
    let puts = (0..1100).map(|_| room.put("many", &other));
    let puts = stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(16);
    puts.try_collect::<Vec<_>>().await.map(drop)?;
    room.put("next", &other).await?;
    let page = versions.list(&room.folder, None, 1).await?;
    let found = page.keys.first().filter(|found| found.key == key);
    let told = found.map(|found| (found.count, found.oldest().map(|version| version.size_bytes)));
    expect(told == Some((1101, Some(100))) && page.more, || {
        format!("of 1,101 versions, the oldest of 100 bytes, {told:?} are told, more: {}", page.more)
    })?;
    let id = found.and_then(KeyVersions::oldest).map(|version| version.id.clone()).unwrap_or_default();
    let body = versions.get(&key, &id, GetRange::Full).await?.bytes().await?;
    expect(body == oldest, || "the oldest version has other bytes".to_owned())
}
