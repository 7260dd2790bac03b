//! A host's `/sys`, `/proc` and `/run` on disk, whose files an input changes.
//!
//! The trees are those that `heal-host`'s own tests read, most of them captured from real kernels.
//! One is unfolded once per process, in memory where the machine has such a place; each input
//! changes some of its files, and everything is put back afterwards.
//!
//! ```text
//!   input:  which file │ how long │ its new content │ which file │ …      (length 255: it is removed)
//! ```

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use heal_host::sysfs::Root;

/// Changes of one input that are looked at.
const EDITS: usize = 12;
/// The length that means: remove it.
const REMOVED: u8 = 255;

/// An unfolded tree.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    /// Its files, with their content.
    files: Vec<(String, String)>,
}

/// A change of one file.
#[derive(Debug, Clone)]
pub(crate) struct Edit {
    /// Its path below the root.
    pub(crate) path: String,
    /// Its new content; nothing, if it is removed.
    pub(crate) content: Option<Vec<u8>>,
}

impl Tree {
    /// Unfolds the text of a `.tree` file.
    pub(crate) fn unfold(text: &str) -> Self {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let root = place.join(format!("heal-fuzz-{}-{:p}", std::process::id(), text));
        let mut tree = Self { root, files: Vec::new() };
        for line in text.lines() {
            tree.entry(line);
        }
        tree
    }

    fn entry(&mut self, line: &str) {
        let mut parts = line.splitn(3, ' ');
        let (kind, path) = (parts.next(), parts.next().unwrap_or_default());
        let rest = parts.next().unwrap_or_default();
        let full = self.root.join(path);
        let parent = full.parent().expect("it is below the root");
        fs::create_dir_all(parent).expect("there is room for a tree");
        match kind {
            Some("f") => {
                let content = rest.replace("\\n", "\n").replace("\\\\", "\\");
                fs::write(full, &content).expect("there is room for a file");
                self.files.push((path.to_owned(), content));
            }
            Some("l") => {
                symlink(rest, full).expect("there is room for a link");
            }
            Some("d") => {
                fs::create_dir_all(full).expect("there is room for a directory");
            }
            Some(_) | None => {}
        }
    }

    pub(crate) fn root(&self) -> Root {
        Root::new(&self.root)
    }

    /// The changes that `bytes` say.
    pub(crate) fn edits(&self, mut bytes: &[u8]) -> Vec<Edit> {
        let mut edits: Vec<Edit> = Vec::new();
        while let [which, length, rest @ ..] = bytes {
            let (path, _) = &self.files[usize::from(*which) % self.files.len()];
            let taken = if *length == REMOVED { 0 } else { usize::from(*length).min(rest.len()) };
            let content = (*length != REMOVED).then(|| rest[..taken].to_vec());
            bytes = &rest[taken..];
            if edits.len() < EDITS && edits.iter().all(|edit| edit.path != *path) {
                edits.push(Edit { path: path.clone(), content });
            }
        }
        edits
    }

    /// Runs `body` on the tree with `edits` in it.
    pub(crate) fn with(&self, edits: &[Edit], body: impl FnOnce()) {
        for edit in edits {
            self.put(&edit.path, edit.content.as_deref());
        }
        body();
        for edit in edits {
            let was = self.files.iter().find(|(path, _)| *path == edit.path);
            self.put(&edit.path, was.map(|(_, content)| content.as_bytes()));
        }
    }

    fn put(&self, path: &str, content: Option<&[u8]>) {
        let path = self.root.join(path);
        let done = match content {
            Some(content) => fs::File::create(path).and_then(|mut file| file.write_all(content)),
            None => fs::remove_file(path),
        };
        done.expect("the tree is ours");
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
