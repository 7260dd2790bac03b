//! The configured provisioner, and the news that its word may have changed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use heal_host::filewatch::FileWatch;
use heal_provisioner::Provisioner;
use heal_provisioner::fixed::{Fixed, FixedPaths};
use tokio::sync::mpsc;

use crate::config::ProvisionerConfig;

/// When to try again to watch a file whose directory is not there.
const WATCH_AGAIN: Duration = Duration::from_secs(30);

/// The backend of `config`, if any.
pub(crate) fn open(config: &ProvisionerConfig) -> Option<Arc<dyn Provisioner>> {
    match config {
        ProvisionerConfig::None => None,
        ProvisionerConfig::Fixed { inventory, state } => Some(Arc::new(Fixed::new(FixedPaths {
            inventory: inventory.clone(),
            state: state.clone(),
        }))),
    }
}

/// The file whose change is news, if there is one.
pub(crate) fn watched(config: &ProvisionerConfig) -> Option<PathBuf> {
    match config {
        ProvisionerConfig::None => None,
        ProvisionerConfig::Fixed { inventory, .. } => Some(inventory.clone()),
    }
}

/// Says when the file at `path` changed, for as long as somebody listens. A watch that came up late
/// says so once as well: the file may have changed before.
pub(crate) async fn watch(path: PathBuf, news: mpsc::Sender<()>) {
    let mut told = false;
    loop {
        match FileWatch::new(&path) {
            Ok(mut watch) => loop {
                if told && news.send(()).await.is_err() {
                    return;
                }
                told = true;
                if let Err(error) = watch.changed().await {
                    tracing::warn!(path = %path.display(), %error, "watching the inventory ended");
                    break;
                }
            },
            Err(error) => {
                if !told {
                    tracing::warn!(path = %path.display(), %error, "the inventory is not watched");
                }
                told = true;
            }
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

/// Checks what the backend reads. Says what was found, or what is wrong; a file that is not there is a
/// provisioner that is away, which is no error of the configuration.
pub(crate) fn check(config: &ProvisionerConfig) -> Result<Option<String>, String> {
    let ProvisionerConfig::Fixed { inventory, .. } = config else {
        return Ok(None);
    };
    let name = inventory.display().to_string();
    let text = match std::fs::read_to_string(inventory) {
        Ok(text) => text,
        Err(error) => return Ok(Some(format!("warning: cannot read {name}: {error}"))),
    };
    match heal_provisioner::fixed::check_inventory(&text, &name) {
        Ok(1) => Ok(Some(format!("{name}: 1 volume"))),
        Ok(volumes) => Ok(Some(format!("{name}: {volumes} volumes"))),
        Err(error) => Err(crate::keeper::chain(&error)),
    }
}
