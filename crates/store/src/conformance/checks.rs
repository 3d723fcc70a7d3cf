//! Checks of whole objects: put, get, list, delete, copy.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Checked, Flaw, Room, expect, expect_kind, if_absent, pattern};
use crate::contract::{GetRange, PutOptions, delete};
use crate::error::Kind;
use crate::key::Key;

pub(super) async fn round_trip(room: Room) -> Checked {
    for (name, len) in [("one", 1), ("small", 1000), ("larger", 300_001)] {
        let body = pattern(len as u64, len);
        let key = room.key(name)?;
        let put = room.store.put(&key, body.clone(), &PutOptions::default()).await?;
        let head = room.store.head(&key).await?;
        room.expect_body(&key, &body).await?;
        for (what, meta) in [("put", &put), ("head", &head)] {
            expect(meta.key == key && meta.size_bytes == len as u64, || {
                format!("{what} says {} has {} bytes, expected {key} with {len}", meta.key, meta.size_bytes)
            })?;
        }
        expect(put.etag == head.etag, || format!("put says etag {:?}, head {:?}", put.etag, head.etag))?;
    }
    Ok(())
}

pub(super) async fn empty_object(room: Room) -> Checked {
    let key = room.put("empty", &Bytes::new()).await?;
    room.expect_body(&key, &Bytes::new()).await?;
    let size = room.store.head(&key).await?.size_bytes;
    expect(size == 0, || format!("head says {size} bytes, expected 0"))?;
    let tail = room.read(&key, GetRange::Suffix(10)).await?;
    expect(tail.is_empty(), || format!("the last 10 bytes of nothing are {} bytes", tail.len()))?;
    expect_kind(
        "bytes from 0 of an empty object",
        Kind::InvalidRange,
        room.read(&key, GetRange::From(0)).await,
    )
}

pub(super) async fn overwrite(room: Room) -> Checked {
    let (long, short) = (pattern(1, 5000), pattern(2, 100));
    let key = room.put("twice", &long).await?;
    let before = room.store.head(&key).await?.etag;
    room.put("twice", &short).await?;
    room.expect_body(&key, &short).await?;
    let after = room.store.head(&key).await?.etag;
    expect(before.is_none() || before != after, || {
        format!("the etag stays {after:?} although the content changed")
    })
}

pub(super) async fn read_after_write(room: Room) -> Checked {
    for round in 0..5 {
        let body = pattern(round, 64);
        let key = room.put(&format!("fresh-{round}"), &body).await?;
        room.expect_body(&key, &body).await?;
        room.store.head(&key).await?;
        let seen = room.store.list(key.as_str(), None, 10).await?.objects.len();
        expect(seen == 1, || format!("a listing right after the put shows {seen} objects, expected 1"))?;
        delete(&*room.store, &key).await?;
        expect_kind("head right after delete", Kind::NotFound, room.store.head(&key).await)?;
        let seen = room.store.list(key.as_str(), None, 10).await?.objects.len();
        expect(seen == 0, || {
            format!("a listing right after the delete shows {seen} objects, expected none")
        })?;
    }
    Ok(())
}

pub(super) async fn absent(room: Room) -> Checked {
    let key = room.key("never/written")?;
    expect_kind("get", Kind::NotFound, room.read(&key, GetRange::Full).await)?;
    expect_kind("get of a range", Kind::NotFound, room.read(&key, GetRange::Suffix(5)).await)?;
    expect_kind("head", Kind::NotFound, room.store.head(&key).await)?;
    let page = room.store.list(&room.folder, None, 10).await?;
    expect(page.objects.is_empty() && !page.more, || "a listing of an empty folder is not empty".to_owned())
}

pub(super) async fn ranges(room: Room) -> Checked {
    let body = pattern(7, 10_000);
    let key = room.put("ranged", &body).await?;
    let valid = [
        (GetRange::Full, 0..10_000),
        (GetRange::Bounded { start: 0, end: 1 }, 0..1),
        (GetRange::Bounded { start: 9_999, end: 10_000 }, 9_999..10_000),
        (GetRange::Bounded { start: 4_000, end: 4_097 }, 4_000..4_097),
        (GetRange::Bounded { start: 9_000, end: 20_000 }, 9_000..10_000),
        (GetRange::Bounded { start: 0, end: u64::MAX }, 0..10_000),
        (GetRange::From(0), 0..10_000),
        (GetRange::From(9_990), 9_990..10_000),
        (GetRange::Suffix(1), 9_999..10_000),
        (GetRange::Suffix(4_000), 6_000..10_000),
        (GetRange::Suffix(10_000), 0..10_000),
        (GetRange::Suffix(99_999), 0..10_000),
    ];
    for (range, bytes) in valid {
        let got = room.store.get(&key, range).await;
        let got = got.map_err(|error| Flaw(format!("{range:?} of 10,000 bytes: {error}")))?;
        let said = got.range.clone();
        let size = got.object_size_bytes;
        let found = got.bytes().await?;
        expect(said == (bytes.start as u64..bytes.end as u64), || {
            format!("{range:?} says it delivers {said:?}")
        })?;
        expect(size.is_none_or(|size| size == 10_000), || {
            format!("{range:?} says the object has {size:?} bytes")
        })?;
        expect(found == body.slice(bytes), || {
            format!("{range:?} delivers other bytes ({} of them)", found.len())
        })?;
    }
    let invalid = [
        GetRange::Bounded { start: 10_000, end: 10_001 },
        GetRange::Bounded { start: 50_000, end: 60_000 },
        GetRange::Bounded { start: 5, end: 5 },
        GetRange::From(10_000),
        GetRange::From(u64::MAX),
        GetRange::Suffix(0),
    ];
    for range in invalid {
        expect_kind(&format!("{range:?} of 10,000 bytes"), Kind::InvalidRange, room.read(&key, range).await)?;
    }
    Ok(())
}

pub(super) async fn large_body(room: Room) -> Checked {
    let body = pattern(11, (6 << 20) + 1);
    let key = room.put("large", &body).await?;
    let mut got = room.store.get(&key, GetRange::Bounded { start: 1, end: 6 << 20 }).await?;
    let mut position = 1;
    while let Some(piece) = got.body.try_next().await? {
        let end = position + piece.len();
        expect(end <= 6 << 20 && piece == body.slice(position..end), || {
            format!("differs after byte {position}")
        })?;
        position = end;
    }
    expect(position == 6 << 20, || format!("the body ended at byte {position}, expected {}", 6 << 20))
}

pub(super) async fn create_if_absent(room: Room) -> Checked {
    let (first, second) = (pattern(1, 100), pattern(2, 100));
    let key = room.key("once")?;
    room.store.put(&key, first.clone(), &if_absent()).await?;
    let again = room.store.put(&key, second, &if_absent()).await;
    expect_kind("the second create", Kind::AlreadyExists, again)
        .map_err(|flaw| means(flaw, "two archivers could overwrite each other's segments"))?;
    room.expect_body(&key, &first).await?;
    delete(&*room.store, &key).await?;
    let again = room.store.put(&key, first, &if_absent()).await;
    again.map(drop).map_err(|error| means(error.into(), "a name that was deleted can't be written again"))
}

pub(super) fn means(flaw: Flaw, meaning: &str) -> Flaw {
    Flaw(format!("{}. This means: {meaning}", flaw.0))
}

pub(super) async fn create_race(room: Room) -> Checked {
    for round in 0..3 {
        let key = room.key(&format!("deep/{round}/raced"))?;
        let bodies: Vec<Bytes> = (0..64).map(|writer| pattern(writer * 7 + round, 2000)).collect();
        let options = if_absent();
        let puts = bodies.iter().map(|body| room.store.put(&key, body.clone(), &options));
        let outcomes = join_all(puts).await;
        let winners: Vec<usize> = (0..64).filter(|&writer| outcomes[writer].is_ok()).collect();
        for outcome in outcomes {
            if outcome.is_err() {
                expect_kind("a losing writer", Kind::AlreadyExists, outcome)?;
            }
        }
        expect(winners.len() == 1, || {
            format!(
                "{} of 64 racing writers were told that they created the object, expected 1",
                winners.len()
            )
        })
        .map_err(|flaw| means(flaw, "the archive's commit is not safe on this store"))?;
        room.expect_body(&key, &bodies[winners[0]]).await?;
    }
    Ok(())
}

pub(super) async fn delete_idempotent(room: Room) -> Checked {
    let key = room.put("gone", &pattern(1, 10)).await?;
    for _ in 0..3 {
        delete(&*room.store, &key).await?;
        expect_kind("get after delete", Kind::NotFound, room.read(&key, GetRange::Full).await)?;
    }
    let outcomes = room.store.delete_many(&[]).await?;
    expect(outcomes.is_empty(), || "deleting nothing has outcomes".to_owned())
}

pub(super) async fn delete_batch(room: Room) -> Checked {
    // Absent keys are as good as present ones to see whether a batch is cut right, and cost no requests.
    let keys = (0..1100).map(|n| room.key(&format!("many-{n:05}"))).collect::<Result<Vec<_>, _>>()?;
    let present = [0, 1, 500, 998, 999, 1000, 1001, 1099];
    try_join_all(present.iter().map(|&n| room.store.put(&keys[n], pattern(1, 10), &PUT))).await?;
    let kept = room.put("many-", &pattern(2, 10)).await?;
    let outcomes = room.store.delete_many(&keys).await?;
    expect(outcomes.len() == keys.len(), || format!("{} outcomes for {} keys", outcomes.len(), keys.len()))?;
    for outcome in outcomes {
        outcome?;
    }
    let left: Vec<_> = room.store.list(&room.folder, None, 100).await?.objects;
    expect(left.len() == 1 && left[0].key == kept, || format!("{} objects are left, expected 1", left.len()))
}

const PUT: PutOptions = PutOptions { create: crate::contract::Create::Overwrite, storage_class: None };

pub(super) async fn list_order(room: Room) -> Checked {
    let names = [
        "a-b", "a.b", "a/b", "a/b-c/d", "a/b.c", "a/c/d/e", "a/c0", "a0", "aa", "A", "Z/z", "~", "!", "00/1",
        "00/10", "00/2", "x/1/y", "x/10/y", "x/2/y", "x-1", "x.1", "x0",
    ];
    let mut keys = names.iter().map(|name| room.key(name)).collect::<Result<Vec<_>, _>>()?;
    try_join_all(keys.iter().map(|key| room.store.put(key, Bytes::from_static(b"12345"), &PUT))).await?;
    keys.sort();
    for page_size in [1, 3, 7, names.len(), 1000] {
        let (mut found, mut after): (Vec<Key>, Option<Key>) = (Vec::new(), None);
        loop {
            let page = room.store.list(&room.folder, after.as_ref(), page_size).await?;
            expect(page.objects.len() <= page_size, || {
                format!("a page of {} for {page_size}", page.objects.len())
            })?;
            expect(page.objects.iter().all(|o| o.size_bytes == 5), || "a listed size is not 5".to_owned())?;
            found.extend(page.objects.iter().map(|object| object.key.clone()));
            after = found.last().cloned();
            if !page.more {
                break;
            }
            expect(!page.objects.is_empty() && found.len() <= keys.len(), || {
                format!(
                    "a page of {page_size} says that there is more after {} of {} keys",
                    found.len(),
                    keys.len()
                )
            })?;
        }
        expect(found == keys, || {
            let at = found.iter().zip(&keys).take_while(|(a, b)| a == b).count();
            let (a, b) = (found.get(at), keys.get(at));
            format!("pages of {page_size}: at position {at} found {a:?}, expected {b:?}")
        })?;
    }
    // Between two keys, too, the listing goes on.
    let between = room.key("a/b0")?;
    let page = room.store.list(&room.folder, Some(&between), 2).await?;
    let expected: Vec<&Key> = keys.iter().filter(|key| **key > between).take(2).collect();
    let found: Vec<&Key> = page.objects.iter().map(|object| &object.key).collect();
    expect(found == expected && page.more, || {
        format!("after {between} found {found:?}, expected {expected:?}")
    })
}

pub(super) async fn list_prefix(room: Room) -> Checked {
    for name in ["ab", "ab/c", "abc", "abd/e", "b"].iter().filter(|name| **name != "ab") {
        room.put(name, &pattern(1, 1)).await?;
    }
    let expected =
        [("a", 3), ("ab", 3), ("ab/", 1), ("abc", 1), ("abd/e", 1), ("abd/ef", 0), ("c", 0), ("", 4)];
    for (prefix, count) in expected {
        let page = room.store.list(&format!("{}{prefix}", room.folder), None, 100).await?;
        expect(page.objects.len() == count && !page.more, || {
            format!("prefix {prefix:?} lists {} objects, expected {count}", page.objects.len())
        })?;
    }
    Ok(())
}

pub(super) async fn list_more(room: Room) -> Checked {
    let mut expected = Vec::new();
    for name in ["a", "b/c", "b/d", "e"] {
        expected.push(room.put(name, &pattern(1, 1)).await?);
    }
    // What is deleted must leave no page behind that says more and holds nothing.
    for name in ["a0", "b/c0", "f", "g"] {
        delete(&*room.store, &room.put(name, &pattern(1, 1)).await?).await?;
    }
    for max_keys in [1, 3, 4] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = room.store.list(&room.folder, after.as_ref(), max_keys).await?;
            expect(!page.more || !page.objects.is_empty(), || {
                format!("pages of {max_keys}: more behind {after:?}, but no key to go on from")
            })?;
            found.extend(page.objects.into_iter().map(|object| object.key));
            after = found.last().cloned();
            if !page.more || found.len() > expected.len() {
                break;
            }
        }
        expect(found == expected, || format!("pages of {max_keys}: expected {expected:?}, found {found:?}"))?;
    }
    Ok(())
}

pub(super) async fn copy(room: Room) -> Checked {
    for (name, len) in [("empty", 0), ("small", 100), ("larger", 2_000_001)] {
        let body = pattern(3, len);
        let from = room.put(&format!("from-{name}"), &body).await?;
        let to = room.put(&format!("to/{name}"), &pattern(4, 50)).await?;
        let meta = room.store.copy(&from, &to, &PUT).await?;
        expect(meta.key == to && meta.size_bytes == len as u64, || {
            format!("copy says {} has {} bytes, expected {to} with {len}", meta.key, meta.size_bytes)
        })?;
        delete(&*room.store, &from).await?;
        room.expect_body(&to, &body).await?;
    }
    let absent = room.store.copy(&room.key("nothing")?, &room.key("to/nothing")?, &PUT).await;
    expect_kind("copy of what is absent", Kind::NotFound, absent)
}

pub(super) async fn copy_if_absent(room: Room) -> Checked {
    let body = pattern(5, 1000);
    let from = room.put("from", &body).await?;
    let (fresh, taken) = (room.key("fresh")?, room.put("taken", &pattern(6, 10)).await?);
    room.store.copy(&from, &fresh, &if_absent()).await?;
    room.expect_body(&fresh, &body).await?;
    let again = room.store.copy(&from, &taken, &if_absent()).await;
    expect_kind("copy over what exists", Kind::AlreadyExists, again)?;
    room.expect_body(&taken, &pattern(6, 10))
        .await
        .map_err(|flaw| means(flaw, "a refused copy destroys what was there"))
}

pub(super) async fn odd_keys(room: Room) -> Checked {
    let mut names: Vec<String> =
        (0x21..0x7f_u8).map(char::from).filter(|c| !"/\\.".contains(*c)).map(|c| format!("c{c}c")).collect();
    names.extend(
        ["%2F", "%2f", "a%20b", "a+b", "..a", "a..", "...", ".hidden/x", "-rf", "a=b&c=d?e#f", "CON", "é"]
            .iter()
            .filter(|name| name.is_ascii())
            .map(|name| (*name).to_owned()),
    );
    names.push("s".repeat(255));
    let room_left = Key::MAX_BYTES.saturating_sub(room.folder.len() + 200);
    names.push(format!(
        "long/{}",
        ["0123456789"; 20]
            .concat()
            .repeat(1 + room_left / 400)
            .chars()
            .enumerate()
            .map(|(at, c)| if at % 100 == 99 { '/' } else { c })
            .take(room_left)
            .collect::<String>()
            .trim_end_matches('/')
    ));
    let keys = names.iter().map(|name| room.key(name)).collect::<Result<Vec<_>, _>>()?;
    let body = |n: usize| pattern(n as u64 + 1, 16);
    let puts = keys.iter().enumerate().map(|(n, key)| {
        let room = room.clone();
        async move { room.store.put(key, body(n), &PUT).await.map(drop) }
    });
    stream::iter(puts.collect::<Vec<_>>()).buffer_unordered(16).try_collect::<Vec<()>>().await?;
    for (n, key) in keys.iter().enumerate() {
        room.expect_body(key, &body(n)).await?;
    }
    let listed: BTreeSet<Key> =
        room.store.list(&room.folder, None, 1000).await?.objects.into_iter().map(|o| o.key).collect();
    let lost: Vec<&Key> = keys.iter().filter(|key| !listed.contains(*key)).collect();
    expect(lost.is_empty(), || format!("a listing lacks {lost:?}"))?;
    for outcome in room.store.delete_many(&keys).await? {
        outcome?;
    }
    let left = room.store.list(&room.folder, None, 1000).await?.objects;
    expect(left.is_empty(), || format!("deleted, but still listed: {left:?}"))
}

pub(super) async fn concurrency(room: Room) -> Checked {
    let works = (0..32_u64).map(|n| {
        let room = room.clone();
        async move {
            let body = pattern(n + 1, 20_000 + n as usize);
            // Folders come and go at the same time.
            let key = room.put(&format!("at/once-{}/{n}", n % 4), &body).await?;
            room.expect_body(&key, &body).await?;
            room.store.list(&room.folder, None, 100).await?;
            delete(&*room.store, &key).await?;
            expect_kind("get after delete", Kind::NotFound, room.read(&key, GetRange::Full).await)
        }
    });
    for outcome in join_all(works).await {
        outcome?;
    }
    Ok(())
}

pub(super) async fn stable_while_read(room: Room) -> Checked {
    let (old, new) = (pattern(1, 3 << 20), pattern(2, 3 << 20));
    let key = room.put("replaced", &old).await?;
    let mut got = room.store.get(&key, GetRange::Full).await?;
    let mut found = got.body.try_next().await?.unwrap_or_default().to_vec();
    room.put("replaced", &new).await?;
    loop {
        match got.body.try_next().await {
            Ok(Some(piece)) => found.extend_from_slice(&piece),
            Ok(None) => break,
            // An error is allowed; a mixture is not.
            Err(_) => return Ok(()),
        }
    }
    expect(found == old || found == new, || {
        let at = found.iter().zip(old.iter()).take_while(|(a, b)| a == b).count();
        format!("the body is the old object up to byte {at} and another one from there")
    })
}

pub(super) async fn cancelled_put(room: Room) -> Checked {
    let body = pattern(9, 1 << 20);
    for n in 0..8_u64 {
        let key = room.key(&format!("dropped-{n}"))?;
        let put = room.store.put(&key, body.clone(), &PUT);
        let _ = tokio::time::timeout(Duration::from_micros(1 << (2 * n)), put).await;
        match room.read(&key, GetRange::Full).await {
            Err(error) if error.kind == Kind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok(found) => {
                expect(found == body, || format!("{key} holds {} of {} bytes", found.len(), body.len()))?
            }
        }
    }
    Ok(())
}
