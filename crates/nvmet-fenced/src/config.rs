//! The file. Everything in it is read once, at the start, and what is not understood is an error.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

/// The configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where questions are taken.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// Our certificate and those above it, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Whoever has a certificate of these authorities may ask, PEM. They should sign nothing else.
    pub clients: PathBuf,
    /// Subsystems that may be taken down begin with one of these; none means all.
    #[serde(default)]
    pub prefixes: Vec<String>,
    /// Where it is kept what was decided.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// What `nvmetcli` sets the target up from when it boots.
    #[serde(default = "saved")]
    pub saved: PathBuf,
    /// The kernel's configuration tree.
    #[serde(default = "tree")]
    pub tree: PathBuf,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], 4421))
}

fn state() -> PathBuf {
    PathBuf::from("/var/lib/nvmet-fenced")
}

fn saved() -> PathBuf {
    PathBuf::from("/etc/nvmet/config.json")
}

fn tree() -> PathBuf {
    PathBuf::from("/sys/kernel/config/nvmet")
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not understood.
    #[error("{} is not understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<ron::error::SpannedError>,
    },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not understood.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = path.to_path_buf();
        match std::fs::read_to_string(&path) {
            Ok(text) => ron::from_str(&text)
                .map_err(|source| ConfigError::Parse { path, source: Box::new(source) }),
            Err(source) => Err(ConfigError::Read { path, source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_files_are_enough_and_the_shipped_example_is_understood() {
        let config: Config =
            ron::from_str(r#"(certificate: "/c", key: "/k", clients: "/a")"#).unwrap();
        assert_eq!(config.listen.port(), 4421);
        assert!(ron::from_str::<Config>(r#"(certificate: "/c", key: "/k")"#).is_err());
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../packaging/nvmet-fenced/nvmet-fenced.ron");
        let shipped = Config::load(&shipped).unwrap();
        assert_eq!((shipped.state, shipped.listen), (config.state, config.listen));
    }
}
