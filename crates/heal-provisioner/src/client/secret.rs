//! Secrets: read from a file by path, held in memory that is wiped, and without a text form.
//!
//! A secret never stands in our configuration, only the path of the file that holds it. The type
//! has no `Debug` and no `Display`, so a log line that would show one does not compile.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::kumoscale::conf;

/// The largest file that is read for a secret.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Bytes that nobody sees.
#[allow(missing_debug_implementations, reason = "a secret has no text form, by intent")]
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes `bytes` over; they are wiped when the last holder lets go.
    #[must_use]
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that sends them.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The file's content. `Err` has the path and never the content.
    pub(crate) fn read_file(path: &Path) -> Result<Self, SecretError> {
        let failed = |source| SecretError::Read { path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() || metadata.len() > MAX_SECRET_FILE {
            return Err(SecretError::Odd { path: path.to_owned() });
        }
        if metadata.mode() & 0o007 != 0 {
            tracing::warn!(path = %path.display(), "a file with a secret is open to everybody");
        }
        // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
        let room = usize::try_from(MAX_SECRET_FILE).unwrap_or(usize::MAX);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
        File::open(path)
            .and_then(|file| file.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes))
            .map_err(failed)?;
        if bytes.len() > room {
            return Err(SecretError::Odd { path: path.to_owned() });
        }
        Ok(Self(bytes))
    }

    /// Without the blanks around it: editors end files with a newline, and a newline in a header
    /// would end the header.
    fn trimmed(&self) -> Self {
        Self(Zeroizing::new(self.0.trim_ascii().to_vec()))
    }
}

/// Where a secret stands. Read anew whenever the old one was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// A file that holds it and nothing else.
    File(PathBuf),
    /// One value of an INI file, as Kioxia's own clients keep it.
    ConfKey {
        /// The file.
        path: PathBuf,
        /// The key in its `[DEFAULT]` section.
        key: &'static str,
    },
}

impl SecretSource {
    /// Reads it, now.
    pub(crate) fn read(&self) -> Result<Secret, SecretError> {
        let secret = match self {
            Self::File(path) => Secret::read_file(path)?.trimmed(),
            Self::ConfKey { path, key } => {
                let text = Secret::read_file(path)?;
                let missing = || SecretError::Missing { path: path.clone(), key };
                conf::value(text.expose(), key).ok_or_else(missing)?
            }
        };
        if secret.expose().is_empty() || secret.expose().iter().any(|byte| !byte.is_ascii_graphic())
        {
            return Err(SecretError::NoToken { path: self.path().to_owned() });
        }
        Ok(secret)
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::ConfKey { path, .. } => path,
        }
    }
}

/// Why there is no secret. Never the secret itself.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// The file is not one that holds a secret.
    #[error("{} is not a file of at most 64 KiB", path.display())]
    Odd {
        /// The file.
        path: PathBuf,
    },
    /// The INI file has no such key.
    #[error("{} has no {key} in its [DEFAULT] section", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// What is there cannot be sent.
    #[error("{} holds something that is no token: it is empty, or has blanks in it", path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}
