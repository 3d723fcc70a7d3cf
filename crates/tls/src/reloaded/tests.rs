use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;
use tokio::time::advance;
use varve_script::Warnings;

use super::*;

/// A file of text that is good unless it says `worse`, and how often it was read.
struct Fixture {
    folder: TempDir,
    reads: Arc<AtomicUsize>,
    reloaded: Reloaded<String>,
}

impl Fixture {
    /// `prepare` makes the file `ca` in the folder.
    fn new(prepare: impl Fn(&TempDir)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(&folder);
        let (path, reads) = (folder.path().join("ca"), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&reads);
        let reloaded = Reloaded::new([path.clone()], move || {
            count.fetch_add(1, Ordering::Relaxed);
            match fs::read_to_string(&path) {
                Ok(text) if text == "worse" => Err("ca: it is bad".to_owned()),
                Ok(text) => Ok(text),
                Err(error) => Err(format!("ca: {}", error.kind())),
            }
        });
        Self { folder, reads, reloaded: reloaded.unwrap() }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("ca"), text).unwrap();
    }

    async fn next_look(&self) -> String {
        advance(LOOK_EVERY).await;
        self.reloaded.current()
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }
}

fn plain(text: &'static str) -> impl Fn(&TempDir) {
    move |folder| fs::write(folder.path().join("ca"), text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_written_is_read_again_and_not_before_its_time() {
    let fixture = Fixture::new(plain("one"));
    assert_eq!((fixture.next_look().await, fixture.reads()), ("one".to_owned(), 1));
    fixture.write("three");
    advance(LOOK_EVERY - Duration::from_millis(1)).await;
    assert_eq!((fixture.reloaded.current(), fixture.reads()), ("one".to_owned(), 1));
    advance(Duration::from_millis(1)).await;
    assert_eq!((fixture.reloaded.current(), fixture.reads()), ("three".to_owned(), 2));
    assert_eq!((fixture.next_look().await, fixture.reads()), ("three".to_owned(), 2));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_put_in_its_place_is_read_also_with_the_same_times() {
    let fixture = Fixture::new(plain("one"));
    let (old, new) = (fixture.folder.path().join("ca"), fixture.folder.path().join("new"));
    fs::write(&new, "two").unwrap();
    let modified = fs::metadata(&old).unwrap().modified().unwrap();
    fs::File::options().write(true).open(&new).unwrap().set_modified(modified).unwrap();
    fs::rename(new, old).unwrap();
    assert_eq!(fixture.next_look().await, "two");
}

/// As Kubernetes does with a secret that is mounted.
#[tokio::test(start_paused = true)]
async fn a_file_behind_a_link_that_was_swapped_is_read() {
    let fixture = Fixture::new(|folder| {
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("ca"), text).unwrap();
        }
        symlink("v1", folder.path().join("data")).unwrap();
        symlink("data/ca", folder.path().join("ca")).unwrap();
    });
    assert_eq!(fixture.next_look().await, "one");
    let swap = fixture.folder.path().join("swap");
    symlink("v2", &swap).unwrap();
    fs::rename(swap, fixture.folder.path().join("data")).unwrap();
    assert_eq!(fixture.next_look().await, "two");
}

#[tokio::test(start_paused = true)]
async fn what_is_bad_or_gone_changes_nothing_is_told_once_and_can_be_mended() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    let fixture = Fixture::new(plain("one"));
    fixture.write("worse");
    for _ in 0..3 {
        assert_eq!((fixture.next_look().await, warnings.count()), ("one".to_owned(), 1));
    }
    assert_eq!(fixture.reads(), 4, "each look tries again");
    fs::remove_file(fixture.folder.path().join("ca")).unwrap();
    for _ in 0..3 {
        assert_eq!((fixture.next_look().await, warnings.count()), ("one".to_owned(), 2));
    }
    fixture.write("two");
    assert_eq!((fixture.next_look().await, warnings.count()), ("two".to_owned(), 2));
    fixture.write("worse");
    assert_eq!(
        (fixture.next_look().await, warnings.count()),
        ("two".to_owned(), 3),
        "what comes again is told again"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_is_the_callers_and_no_files_are_no_looks() {
    assert_eq!(Reloaded::<()>::new([PathBuf::from("ca")], || Err("no")).unwrap_err(), "no");
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    let fixed = Reloaded::new([], move || Ok::<_, String>(count.fetch_add(1, Ordering::Relaxed))).unwrap();
    advance(LOOK_EVERY * 2).await;
    assert_eq!((fixed.current(), reads.load(Ordering::Relaxed)), (0, 1));
}

/// Of several files, one alone may have changed; who asks meanwhile does not wait.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_look() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["certificate", "key"].map(|name| folder.path().join(name));
    files.iter().for_each(|file| fs::write(file, "x").unwrap());
    let (begun, wait_begun) = std::sync::mpsc::channel();
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let (begun, wait) = (Mutex::new(begun), Mutex::new(wait));
    let reads = AtomicUsize::new(0);
    let reloaded = Reloaded::new(files.clone(), move || {
        let read = reads.fetch_add(1, Ordering::Relaxed);
        if read > 0 {
            begun.lock().send(()).unwrap();
            // Whoever waited for it would see its value.
            let _ = wait.lock().recv_timeout(Duration::from_secs(5));
        }
        Ok::<_, String>(read)
    });
    let reloaded = Arc::new(reloaded.unwrap());
    fs::write(&files[1], "other").unwrap();
    advance(LOOK_EVERY).await;
    let runtime = tokio::runtime::Handle::current();
    let looking = std::thread::spawn({
        let reloaded = Arc::clone(&reloaded);
        move || {
            let _clock = runtime.enter();
            reloaded.current()
        }
    });
    wait_begun.recv().unwrap();
    assert_eq!(reloaded.current(), 0);
    go_on.send(()).unwrap();
    assert_eq!((looking.join().unwrap(), reloaded.current()), (1, 1));
}
