//! Kill -9 in the middle of writes: what is under a key afterwards is whole.

#![allow(clippy::unwrap_used, reason = "a failure here fails the test")]

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use varve_store::{Create, FilesystemStore, GetRange, Key, Kind, PutOptions, SharedStore, Store, delete};

const ROOT: &str = "VARVE_CRASH_ROOT";
const ROUNDS: u64 = 12;
const PART_BYTES: usize = 256 << 10;

/// Each byte follows from the first eight: any mix of two bodies, and any part of one, shows.
fn body(seed: u64, len: usize) -> Bytes {
    let mut state = seed;
    let words = std::iter::from_fn(move || {
        let word = state;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some(word)
    });
    let mut body: Vec<u8> = words.take(len / 8).flat_map(u64::to_le_bytes).collect();
    body.extend_from_slice(&(len as u64).to_le_bytes());
    body.into()
}

fn is_whole(found: &Bytes) -> bool {
    let (Some(seed), Some(len)) = (found.first_chunk::<8>(), found.last_chunk::<8>()) else { return false };
    u64::from_le_bytes(*len) as usize + 8 == found.len()
        && body(u64::from_le_bytes(*seed), found.len() - 8) == *found
}

fn options(create: Create) -> PutOptions {
    PutOptions { create, ..PutOptions::default() }
}

/// The process that is killed. Does nothing as a test of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes_until_it_is_killed() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let store: SharedStore = Arc::new(FilesystemStore::open(root).unwrap());
    let key = |name: String| Key::new(name).unwrap();
    for n in u64::from(std::process::id()) << 20.. {
        let len = 300_000 + (n as usize % 7) * 100_000;
        let whole = body(n, len);
        store
            .put(&key(format!("over/written/{}", n % 3)), whole.clone(), &options(Create::Overwrite))
            .await
            .unwrap();
        store.put(&key(format!("once/{n}/object")), whole.clone(), &options(Create::IfAbsent)).await.unwrap();
        let upload = key(format!("parts/{}/of/many", n % 3));
        let upload = store.upload(&upload, PART_BYTES as u64, None, &PutOptions::default()).await.unwrap();
        for number in (1..=whole.len().div_ceil(PART_BYTES)).rev() {
            let part = whole.slice((number - 1) * PART_BYTES..whole.len().min(number * PART_BYTES));
            upload.put_part(number as u32, part).await.unwrap();
        }
        upload.complete().await.unwrap();
        store
            .copy(
                &key(format!("once/{n}/object")),
                &key(format!("copy/{}", n % 3)),
                &options(Create::Overwrite),
            )
            .await
            .unwrap();
        if n % 2 == 0 {
            delete(&*store, &key(format!("once/{n}/object"))).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_writers_leave_whole_objects_only() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store: SharedStore = Arc::new(FilesystemStore::open(&root).unwrap());
    let mut leftovers = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed"])
            .env(ROOT, &root)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while store.list("", None, 1).await.unwrap().objects.is_empty() {
            assert!(Instant::now() < until, "the writer wrote nothing");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(150 + round * 17 % 90)).await;
        assert!(child.try_wait().unwrap().is_none(), "the writer ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();

        let found = store.list("", None, 100_000).await.unwrap().objects;
        for object in &found {
            let got = store.get(&object.key, GetRange::Full).await.unwrap().bytes().await.unwrap();
            assert_eq!(got.len() as u64, object.size_bytes);
            assert!(is_whole(&got), "round {round}: {} is not whole", object.key);
        }
        let pending = store.list_uploads("").await.unwrap();
        leftovers += pending.len();
        for upload in &pending {
            assert!(upload.started_ms.is_some_and(|ms| ms > 1_700_000_000_000), "{upload:?}");
            store.abort_upload(upload).await.unwrap();
        }
        assert!(store.list_uploads("").await.unwrap().is_empty());
    }
    println!("{leftovers} staged files were left by {ROUNDS} kills, and found");
    assert!(leftovers > 0, "no kill hit a write: the test shows nothing");
}

#[tokio::test]
async fn links_and_foreign_files_are_not_objects() {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("store"), folder.path().join("outside"));
    std::fs::create_dir_all(&outside).unwrap();
    std::fs::write(outside.join("secret"), b"secret").unwrap();
    let store = FilesystemStore::open(&root).unwrap();
    std::os::unix::fs::symlink(&outside, root.join("folder")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), root.join("file")).unwrap();
    std::fs::write(root.join("a file"), b"no key has a space").unwrap();

    assert!(store.list("", None, 100).await.unwrap().objects.is_empty());
    for name in ["folder/secret", "file", "folder"] {
        let key = Key::new(name).unwrap();
        assert_eq!(store.get(&key, GetRange::Full).await.unwrap_err().kind, Kind::NotFound, "{name}");
        assert_eq!(store.head(&key).await.unwrap_err().kind, Kind::NotFound, "{name}");
        delete(&store, &key).await.unwrap();
    }
    let body = Bytes::from_static(b"new");
    let through = store.put(&Key::new("folder/new").unwrap(), body.clone(), &PutOptions::default()).await;
    assert_eq!(through.unwrap_err().kind, Kind::Invalid);
    let copied =
        store.copy(&Key::new("file").unwrap(), &Key::new("copy").unwrap(), &PutOptions::default()).await;
    assert_eq!(copied.unwrap_err().kind, Kind::NotFound);
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
    let reserved = Key::new(".varve-uploads/x").unwrap();
    assert_eq!(
        store.put(&reserved, body.clone(), &PutOptions::default()).await.unwrap_err().kind,
        Kind::Invalid
    );

    // A key under another key, either way round, is refused and harms nothing.
    let (outer, inner) = (Key::new("outer").unwrap(), Key::new("outer/inner").unwrap());
    store.put(&outer, body.clone(), &PutOptions::default()).await.unwrap();
    assert_eq!(
        store.put(&inner, body.clone(), &PutOptions::default()).await.unwrap_err().kind,
        Kind::Invalid
    );
    delete(&store, &outer).await.unwrap();
    store.put(&inner, body.clone(), &PutOptions::default()).await.unwrap();
    for create in [Create::Overwrite, Create::IfAbsent] {
        assert_eq!(store.put(&outer, body.clone(), &options(create)).await.unwrap_err().kind, Kind::Invalid);
    }
    assert!(store.list_uploads("").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_root_that_vanishes_is_unavailable_and_a_file_cut_short_is_truncated() {
    use futures::TryStreamExt;

    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = FilesystemStore::open(&root).unwrap();
    let key = Key::new("cut").unwrap();
    store.put(&key, Bytes::from(vec![7; 4 << 20]), &PutOptions::default()).await.unwrap();
    let got = store.get(&key, GetRange::Full).await.unwrap();
    std::fs::File::options().write(true).open(root.join("cut")).unwrap().set_len(1 << 20).unwrap();
    let error = got.body.try_collect::<Vec<Bytes>>().await.unwrap_err();
    assert_eq!(error.kind, Kind::Truncated, "{error}");

    std::fs::remove_dir_all(&root).unwrap();
    for error in [
        store.head(&key).await.unwrap_err(),
        store.get(&key, GetRange::Full).await.unwrap_err(),
        store.list("", None, 1).await.unwrap_err(),
        store.put(&key, Bytes::new(), &PutOptions::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Unavailable, "{error}");
    }
}
