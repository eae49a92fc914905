//! One process after another, and side by side, on one folder.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::log::{Format, Level};

const NEVER: Duration = Duration::MAX;

/// A folder and a log of the test's own.
struct World {
    folder: PathBuf,
    written: Written,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl World {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("mcp-x-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        Self { folder, written: Written::default() }
    }

    /// A process begins, in the 1,000th second.
    fn open(&self) -> Journal {
        self.open_at(|| Duration::from_secs(1_000))
    }

    fn open_at(&self, now: fn() -> Duration) -> Journal {
        Journal::open(&self.folder, now, Log::to(Box::new(self.written.clone()), Level::Debug, Format::Text))
    }

    fn file(&self, number: usize) -> PathBuf {
        self.folder.join(FOLDER).join(format!("journal-{number}"))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.join(FOLDER)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What was logged, without the times.
    fn log(&self, journal: &Journal) -> Vec<String> {
        journal.log.flush();
        let text = String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[track_caller]
fn check(journal: &Journal, expected: &[(&str, &str)]) {
    let found = journal.under("");
    let found: Vec<_> = found.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn what_was_put_last_is_there_after_kill_9_and_private() {
    let world = World::new("kill");
    let journal = world.open();
    for (key, value) in [("a/1", "one"), ("a/2", "two"), ("b", "three"), ("a/1", "four"), ("c", "five")] {
        journal.put(key, value, NEVER);
    }
    journal.remove("a/2");
    journal.remove("a/2");
    journal.remove("nothing");
    // Nothing was made durable and nothing ended in order.
    let file = fs::read(world.file(0)).unwrap();
    drop(journal);
    fs::write(world.file(0), file).unwrap();
    let journal = world.open();
    check(&journal, &[("a/1", "four"), ("b", "three"), ("c", "five")]);
    let under: Vec<_> = journal.under("a/").into_iter().map(|entry| (entry.key, entry.value)).collect();
    assert_eq!(under, [("1".to_owned(), "four".to_owned())]);
    journal.remove_under("a/");
    check(&world.open(), &[("b", "three"), ("c", "five")]);
    for name in ["journal-0", "journal-0.lock"] {
        let mode = fs::metadata(world.folder.join(FOLDER).join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(fs::metadata(world.folder.join(FOLDER)).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(world.log(&journal), [""; 0]);
}

#[test]
fn what_is_outdated_is_not_there_and_goes_with_the_next_rewriting() {
    let world = World::new("outdated");
    let journal = world.open();
    journal.put("old", "1", Duration::from_secs(2_000));
    journal.put("young", "2", Duration::from_secs(2_001));
    check(&journal, &[("old", "1"), ("young", "2")]);
    assert_eq!(journal.under("y")[0].until, Duration::from_secs(2_001));
    drop(journal);
    check(&world.open_at(|| Duration::from_secs(2_000)), &[("young", "2")]);
    assert!(!fs::read_to_string(world.file(0)).unwrap().contains("old"));
}

#[test]
fn a_file_cut_at_any_byte_is_told_and_the_rest_used() {
    let world = World::new("cut");
    let journal = world.open();
    journal.put("a", "1", NEVER);
    journal.put("b", "2", NEVER);
    drop(journal);
    let whole = fs::read(world.file(0)).unwrap();
    let ends: Vec<usize> = whole.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..whole.len() {
        fs::write(world.file(0), &whole[..length]).unwrap();
        world.written.0.lock().unwrap().clear();
        let journal = world.open();
        let left = ends.iter().filter(|end| **end <= length).count().saturating_sub(1);
        check(&journal, &[("a", "1"), ("b", "2")][..left]);
        let log = world.log(&journal);
        if length == 0 || ends.contains(&length) {
            assert_eq!(log, [""; 0], "{length}");
        } else {
            assert_eq!(log.len(), 1, "{log:?}");
            assert!(log[0].starts_with("WARN kept sessions damaged file=") && log[0].ends_with(" lines=1"), "{log:?}");
        }
        // It was written anew, so that the next one has nothing to tell.
        journal.put("c", "3", NEVER);
        drop(journal);
        let journal = world.open();
        assert!(journal.under("c").len() == 1 && world.log(&journal) == log, "{length}");
    }
}

#[test]
fn a_file_of_another_format_is_left_alone() {
    let world = World::new("format");
    fs::create_dir_all(world.folder.join(FOLDER)).unwrap();
    fs::write(world.file(0), "mcp-x sessions 2\nwho knows\n").unwrap();
    let journal = world.open();
    journal.put("a", "1", NEVER);
    drop(journal);
    let journal = world.open();
    check(&journal, &[("a", "1")]);
    assert_eq!(fs::read_to_string(world.file(0)).unwrap(), "mcp-x sessions 2\nwho knows\n");
    let log = world.log(&journal);
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[1].starts_with("WARN kept sessions ignored file="), "{log:?}");
    assert!(log[1].ends_with("journal-0 reason=\"expected format 1\""), "{log:?}");
}

#[test]
fn a_file_does_not_grow_beyond_what_it_is_worth() {
    let world = World::new("grow");
    let journal = world.open();
    let value = "x".repeat(1_000);
    let size = || fs::metadata(world.file(0)).unwrap().len();
    for round in 0..1_000 {
        journal.put(&format!("key {}", round % 10), &value, NEVER);
        journal.put("gone", &value, NEVER);
        journal.remove("gone");
        journal.tend();
        assert!(size() < SMALL + 4_000, "{round}: {}", size());
    }
    assert_eq!(journal.under("").len(), 10);
    for round in 0..200 {
        journal.put(&format!("key {round}"), &value, NEVER);
        journal.tend();
    }
    assert!(size() > 200 * 1_000, "what counts stays");
    drop(journal);
    assert_eq!(world.open().under("key ").len(), 200);
    assert_eq!(world.names(), ["journal-0", "journal-0.lock"]);
}

#[test]
fn what_is_put_while_the_file_is_written_anew_is_in_it() {
    let world = World::new("meanwhile");
    let journal = world.open();
    let rounds = 500;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let journal = &journal;
            scope.spawn(move || {
                for round in 0..rounds {
                    journal.put(&format!("{writer}"), &format!("{round}"), NEVER);
                    journal.put(&format!("{writer} {round}"), "", NEVER);
                }
            });
        }
        for _ in 0..50 {
            journal.rewrite();
        }
    });
    drop(journal);
    let journal = world.open();
    assert_eq!(journal.under("").len(), 4 * (rounds + 1));
    for writer in 0..4 {
        assert_eq!(journal.under(&format!("{writer}"))[0].value, format!("{}", rounds - 1));
    }
    assert_eq!(world.log(&journal), [""; 0]);
}

#[test]
fn several_processes_keep_apart_what_they_write_and_read_it_all() {
    let world = World::new("several");
    let first = world.open();
    first.put("a", "first", NEVER);
    first.put("b", "first", NEVER);
    let second = world.open();
    check(&second, &[("a", "first"), ("b", "first")]);
    second.put("a", "second", NEVER);
    first.put("c", "first", NEVER);
    second.remove("b");
    assert_eq!(world.names(), ["journal-0", "journal-0.lock", "journal-1", "journal-1.lock"]);
    // A third that comes meanwhile knows what both have written, and takes nothing from them.
    let third = world.open();
    check(&third, &[("a", "second"), ("c", "first")]);
    third.rewrite();
    first.rewrite();
    drop((first, third));
    second.put("d", "second", NEVER);
    drop(second);
    // All are gone: the next one takes over everything.
    check(&world.open(), &[("a", "second"), ("c", "first"), ("d", "second")]);
    assert_eq!(world.names(), ["journal-0", "journal-0.lock", "journal-1.lock", "journal-2.lock"]);
    check(&world.open(), &[("a", "second"), ("c", "first"), ("d", "second")]);
}

#[test]
fn a_clock_that_was_set_back_does_not_bring_back_what_was_before() {
    let world = World::new("clock");
    let journal = world.open_at(|| Duration::from_secs(5_000));
    journal.put("a", "before", NEVER);
    drop(journal);
    let journal = world.open();
    let other = world.open();
    journal.put("a", "after", NEVER);
    drop((journal, other));
    check(&world.open(), &[("a", "after")]);
}

#[test]
fn a_folder_that_takes_nothing_is_told_once_and_serves_on() {
    let world = World::new("nothing");
    fs::create_dir_all(&world.folder).unwrap();
    fs::write(world.folder.join(FOLDER), "in the way").unwrap();
    let journal = world.open();
    for _ in 0..3 {
        journal.put("a", "1", NEVER);
        journal.tend();
    }
    check(&journal, &[("a", "1")]);
    let log = world.log(&journal);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("WARN sessions not kept file=") && log[0].contains("reason="), "{log:?}");
}

/// `/dev/full` refuses every write as a full disk does.
#[test]
fn a_full_disk_is_told_once_and_all_is_there_when_it_has_room_again() {
    let world = World::new("full");
    let journal = world.open();
    journal.put("a", "1", NEVER);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    journal.state().file = Some(Arc::new(full));
    fs::create_dir(world.file(0).with_extension("new")).unwrap();
    journal.put("b", "2", NEVER);
    journal.put("c", "3", NEVER);
    journal.tend();
    journal.tend();
    let log = world.log(&journal);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("WARN sessions not kept file=") && log[0].contains("no space left"), "{log:?}");
    fs::remove_dir(world.file(0).with_extension("new")).unwrap();
    journal.tend();
    journal.put("d", "4", NEVER);
    let log = world.log(&journal);
    assert!(log.len() == 2 && log[1].starts_with("INFO sessions kept again file="), "{log:?}");
    drop(journal);
    check(&world.open(), &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
}

#[test]
fn a_file_that_nobody_can_have_written_is_left_alone() {
    for (name, make) in [
        ("huge", (|path| File::create(path).unwrap().set_len(MOST_FILE + 1).unwrap()) as fn(PathBuf)),
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("device", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
    ] {
        let world = World::new(name);
        fs::create_dir_all(world.folder.join(FOLDER)).unwrap();
        make(world.file(0));
        let journal = world.open();
        journal.put("a", "1", NEVER);
        drop(journal);
        let journal = world.open();
        check(&journal, &[("a", "1")]);
        assert!(world.file(1).exists() && world.file(0).exists(), "{name}");
        let log = world.log(&journal);
        assert!(log.len() == 2 && log[1].starts_with("WARN kept sessions ignored file="), "{name}: {log:?}");
    }
}

#[test]
fn no_more_is_kept_than_is_read_again() {
    let world = World::new("most");
    let mut journal = world.open();
    journal.most = 1_000;
    let value = "x".repeat(300);
    for key in ["a", "b", "c", "d", "e"] {
        journal.put(key, &value, NEVER);
        journal.tend();
    }
    check(&journal, &[("a", &value), ("b", &value)]);
    // What is not kept any more must not be taken for what is good now.
    journal.put("a", &"y".repeat(900), NEVER);
    check(&journal, &[("b", &value)]);
    let log = world.log(&journal);
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("WARN sessions not kept file=") && log[0].contains("1000 bytes"), "{log:?}");
    journal.put("b", "2", NEVER);
    journal.put("f", &value, NEVER);
    drop(journal);
    check(&world.open(), &[("b", "2"), ("f", &value)]);
}

#[test]
fn a_file_that_cannot_be_written_anew_grows_up_to_a_limit() {
    let world = World::new("stuck");
    let journal = world.open();
    fs::create_dir(world.file(0).with_extension("new")).unwrap();
    journal.state().written = MOST_FILE - 10;
    let size = || fs::metadata(world.file(0)).unwrap().len();
    let before = size();
    journal.put("a", "1", NEVER);
    assert_eq!(size(), before);
    let log = world.log(&journal);
    assert!(log.len() == 1 && log[0].starts_with("WARN sessions not kept file="), "{log:?}");
    fs::remove_dir(world.file(0).with_extension("new")).unwrap();
    journal.tend();
    drop(journal);
    check(&world.open(), &[("a", "1")]);
}
