//! A directory of a test's own, with tools in it that do what the test says.

#![allow(
    clippy::disallowed_methods,
    reason = "a test builds its own tree, and takes it down again"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Tools;

/// A directory that goes when the test ends.
pub(crate) struct TempDir(PathBuf);

static COUNT: AtomicU32 = AtomicU32::new(0);

impl TempDir {
    pub(crate) fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("heal-host-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        self.bytes(name, text.as_bytes())
    }

    pub(crate) fn bytes(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap_or_default()
    }

    /// Every tool, doing nothing but noting that it was called.
    pub(crate) fn tools(&self) -> Tools {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/fake-tool");
        let bin = self.0.join("bin");
        fs::create_dir(&bin).unwrap();
        for name in ["mdadm", "nvme", "blkid", "helper"] {
            std::os::unix::fs::symlink(&script, bin.join(name)).unwrap();
        }
        Tools::find_in(&[&bin], &bin.join("helper")).unwrap()
    }

    /// Lets a tool run this piece of shell.
    pub(crate) fn tool_does(&self, name: &str, shell: &str) {
        self.file(&format!("bin/{name}.sh"), shell);
    }

    /// How the tools were called, one call a line.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.read("bin/calls").lines().map(str::to_owned).collect()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
