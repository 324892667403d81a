//! Removes what a module may have made: trees of any depth, and links.
//!
//! A tree is not walked, since its depth is the module's choice: a recursion would overflow the stack, and a path would become too
//! long. It is renamed to where modules reach nothing, and its directories are renamed up beside it, one after the other.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where trees are taken apart, in the directory of all modules' directories. No module's name begins with a dot.
const TRASH: &str = ".removed";
/// Directories that are taken apart at once; the rest goes with the next removal. Some seconds.
const DIRECTORIES_MAX: usize = 200_000;

/// Removes a file, a link (not what it points to) or a whole tree, if it is there. `dir` is on the same file system, and no module
/// may write to it.
///
/// # Errors
/// When something of it stays. It is then out of its place, unless renaming it failed.
pub(super) fn remove(dir: &Path, path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.is_dir() {
        return std::fs::remove_file(path);
    }
    let trash = dir.join(TRASH);
    std::fs::create_dir_all(&trash)?;
    let mut names = Names::new(&trash);
    std::fs::rename(path, names.next())?;
    empty(&trash, &mut names)
}

/// Removes all that is in the trash, also of earlier removals that were cut.
fn empty(trash: &Path, names: &mut Names<'_>) -> io::Result<()> {
    for _ in 0..DIRECTORIES_MAX {
        let Some(entry) = std::fs::read_dir(trash)?.next() else { return Ok(()) };
        let directory = entry?.path();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            // Does not follow links.
            if entry.file_type()?.is_dir() {
                std::fs::rename(entry.path(), names.next())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        match std::fs::remove_dir(&directory) {
            // A process that still works in it made something meanwhile.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            removed => removed?,
        }
    }
    Err(io::Error::other("a module's directory has too many directories; the rest is removed later"))
}

/// Names in the trash that are free.
struct Names<'d> {
    trash: &'d Path,
    run: u64,
    count: u64,
}

impl<'d> Names<'d> {
    fn new(trash: &'d Path) -> Self {
        Self { trash, run: rand::random(), count: 0 }
    }

    fn next(&mut self) -> PathBuf {
        self.count += 1;
        self.trash.join(format!("{:x}-{}", self.run, self.count))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Made {
        File,
        Link,
        Directory(Vec<Made>),
    }

    fn made() -> impl Strategy<Value = Made> {
        let leaf = prop_oneof![Just(Made::File), Just(Made::Link)];
        leaf.prop_recursive(6, 64, 6, |inner| {
            proptest::collection::vec(inner, 0..6).prop_map(Made::Directory)
        })
    }

    fn make(what: &Made, at: &Path, outside: &Path) {
        match what {
            Made::File => std::fs::write(at, "x").unwrap(),
            Made::Link => std::os::unix::fs::symlink(outside, at).unwrap(),
            Made::Directory(entries) => {
                std::fs::create_dir(at).unwrap();
                for (n, entry) in entries.iter().enumerate() {
                    make(entry, &at.join(n.to_string()), outside);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_module_made_is_removed_and_what_its_links_name_stays(what in made()) {
            let dir = tempfile::tempdir().unwrap();
            let outside = tempfile::tempdir().unwrap();
            std::fs::write(outside.path().join("kept"), "x").unwrap();
            let path = dir.path().join("m");
            make(&what, &path, outside.path());
            remove(dir.path(), &path).unwrap();
            prop_assert!(std::fs::symlink_metadata(&path).is_err());
            let trash = std::fs::read_dir(dir.path().join(TRASH));
            prop_assert_eq!(trash.map_or(0, Iterator::count), 0);
            prop_assert!(outside.path().join("kept").exists());
        }
    }

    #[test]
    fn a_tree_deeper_than_the_stack_and_the_longest_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        // Made from its innermost directory outwards: no path is long.
        let next = dir.path().join("next");
        std::fs::create_dir(&path).unwrap();
        for _ in 0..30_000 {
            std::fs::create_dir(&next).unwrap();
            std::fs::rename(&path, next.join("d")).unwrap();
            std::fs::rename(&next, &path).unwrap();
        }
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        let (root, tree) = (dir.path().to_owned(), path.clone());
        small.spawn(move || remove(&root, &tree)).unwrap().join().unwrap().unwrap();
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path().join(TRASH)).unwrap().count(), 0);
    }
}
