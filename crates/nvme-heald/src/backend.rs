//! The configured provisioner, and the news that its word may have changed.
//!
//! ```text
//!   config ──► open ──► dyn Provisioner ──► actors
//!                  ├──► watch: a file changed, or the provisioner says that something did ──► look again
//!                  └──► announce: this host lives
//! ```
//!
//! A backend that cannot be set up is one that is away, and says why with every call: a wrong file
//! of a vendor's never keeps the daemon from starting.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heal_host::filewatch::FileWatch;
use heal_host::plugin::{self, Plugin};
use heal_provisioner::client::ClientOptions;
use heal_provisioner::exec::{self, Ended, Spawner};
use heal_provisioner::fixed::{Fixed, FixedPaths};
use heal_provisioner::http::{self, Http};
use heal_provisioner::kumoscale::{self, KumoScale, KumoScaleOptions, conf};
use heal_provisioner::protocol::MAX_DOCUMENT;
use heal_provisioner::{Away, CallContext, HostInfo, Provisioner, async_trait, dispatch};
use heal_types::{FaultClass, Nqn};
use tokio::sync::mpsc;

use crate::config::{Access, ProvisionerConfig};

/// When to try again to watch a file whose directory is not there.
const WATCH_AGAIN: Duration = Duration::from_secs(30);
/// How long one question for changes waits.
const CHANGES_WAIT: Duration = Duration::from_secs(60);
/// When to ask a provisioner for changes again that has no such call.
const CHANGES_UNKNOWN: Duration = Duration::from_secs(600);
/// How often the provisioner hears that this host lives, and by when it is promised.
const ANNOUNCE: Duration = Duration::from_secs(20);
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to hear it.
const ANNOUNCE_LIMIT: Duration = Duration::from_secs(10);

/// A backend, as its kind needs it.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) provisioner: Arc<dyn Provisioner>,
    /// The same, where it can tell of changes.
    http: Option<Arc<Http>>,
    /// Whether it wants to hear that this host lives.
    announced: bool,
}

/// The backend of `config`, if any.
pub(crate) fn open(config: &ProvisionerConfig) -> Option<Opened> {
    let plain = |provisioner: Arc<dyn Provisioner>, announced| {
        Some(Opened { provisioner, http: None, announced })
    };
    match config {
        ProvisionerConfig::None => None,
        ProvisionerConfig::Fixed { inventory, state } => plain(
            Arc::new(Fixed::new(FixedPaths { inventory: inventory.clone(), state: state.clone() })),
            false,
        ),
        ProvisionerConfig::KumoScale { addresses, conf, access, host_id, state } => {
            match kumoscale_client(addresses, conf, access) {
                Ok((client, warnings)) => {
                    for warning in warnings {
                        tracing::warn!("{warning}");
                    }
                    let host_id = host_id.clone().or_else(kumoscale::host_id);
                    if host_id.is_none() {
                        tracing::warn!("this host has no id at the provisioner; set host_id");
                    }
                    let options = KumoScaleOptions::new(client, host_id, state.clone());
                    plain(Arc::new(KumoScale::new(options)), true)
                }
                Err(why) => {
                    tracing::error!(why, "the provisioner cannot be set up");
                    plain(Arc::new(Away { name: config.name(), why }), false)
                }
            }
        }
        ProvisionerConfig::Http { urls, access } => match access.client(urls, http::DEFAULT_PORT) {
            Ok(client) => {
                let http = Arc::new(http::backend(client));
                Some(Opened {
                    provisioner: Arc::clone(&http) as Arc<dyn Provisioner>,
                    http: Some(http),
                    announced: true,
                })
            }
            Err(error) => {
                plain(Arc::new(Away { name: config.name(), why: error.to_string() }), false)
            }
        },
        ProvisionerConfig::Exec { program, user, network } => {
            let plugin = Plugin { program: program.clone(), user: user.clone(), network: *network };
            plain(Arc::new(exec::backend(Arc::new(Sandboxed(plugin)))), false)
        }
    }
}

/// From our options, and from the vendor's file for what they do not say. Also says what is odd.
fn kumoscale_client(
    addresses: &[String],
    conf: &Path,
    access: &Access,
) -> Result<(ClientOptions, Vec<String>), String> {
    let ours =
        access.client(addresses, kumoscale::DEFAULT_PORT).map_err(|error| error.to_string())?;
    if !addresses.is_empty() {
        return Ok((ours, Vec::new()));
    }
    let theirs = conf::read(conf).map_err(|error| crate::keeper::chain(&error))?;
    let Some(theirs) = theirs else {
        return Err(format!("no addresses are configured, and there is no {}", conf.display()));
    };
    let mut tls = ours.tls;
    tls.identity.get_or_insert(theirs.identity);
    let credentials = match ours.credentials {
        heal_provisioner::client::CredentialOptions::None => theirs.credentials,
        given @ (heal_provisioner::client::CredentialOptions::Bearer(_)
        | heal_provisioner::client::CredentialOptions::ClientCredentials { .. }) => given,
    };
    Ok((ClientOptions { endpoints: theirs.endpoints, tls, credentials }, theirs.warnings))
}

/// A plugin behind the port that the backend knows.
#[derive(Debug)]
struct Sandboxed(Plugin);

#[async_trait]
impl Spawner for Sandboxed {
    async fn run(&self, input: Vec<u8>, limit: Duration) -> Ended {
        let most = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX).saturating_add(1);
        match self.0.run(&input, limit, most).await {
            plugin::Ended::Exited { code, stdout, stderr } => {
                if !stderr.is_empty() {
                    let said = heal_provisioner::text::printable(stderr.trim(), 500);
                    tracing::info!(program = %self.0.program.display(), said, "the plugin complains");
                }
                Ended::Exited { code, stdout, stderr }
            }
            plugin::Ended::Killed => Ended::Killed,
            plugin::Ended::NotStarted(why) => Ended::NotStarted(why),
        }
    }
}

/// Tells the provisioner that this host lives, for ever; says when that begins to fail, and when it
/// works again.
pub(crate) async fn announce(opened: Opened, host: HostInfo) {
    if !opened.announced {
        return;
    }
    let mut reached = None;
    loop {
        let answer = dispatch::probe(&*opened.provisioner, &host, ANNOUNCE_LIMIT).await;
        let provisioner = opened.provisioner.name();
        match &answer {
            Ok(()) if reached == Some(true) => {}
            Ok(()) => tracing::info!(provisioner, "the provisioner answers"),
            Err(fault) if reached == Some(false) => {
                tracing::debug!(provisioner, %fault, "the provisioner still does not answer");
            }
            Err(fault) => tracing::warn!(provisioner, %fault, "the provisioner does not answer"),
        }
        reached = Some(answer.is_ok());
        tokio::time::sleep(ANNOUNCE).await;
    }
}

/// Who this host is, as it introduces itself. None without an NQN: then nobody could let it in
/// anyway.
pub(crate) fn host_info(nqn: Option<&Nqn>) -> Option<HostInfo> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let nqn = nqn.cloned().or_else(|| read("/etc/nvme/hostnqn")?.parse().ok())?;
    Some(HostInfo {
        nqn,
        id: read("/etc/nvme/hostid"),
        name: read("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        next_within: ANNOUNCED_WITHIN,
        multipath: read("/sys/module/nvme_core/parameters/multipath").as_deref() == Some("Y"),
    })
}

/// Says when the provisioner says that something changed, as long as somebody listens.
pub(crate) async fn listen(opened: Opened, news: mpsc::Sender<()>) {
    let Some(http) = opened.http else { return };
    let mut revision: Option<String> = None;
    loop {
        let context = CallContext::within(CHANGES_WAIT);
        match http.carrier().changed(&context, revision.as_deref()).await {
            Ok(now) => {
                let changed = revision.as_ref().is_some_and(|before| *before != now);
                let unchanged = revision.as_ref() == Some(&now);
                revision = Some(now);
                if changed && news.send(()).await.is_err() {
                    return;
                }
                // A server that answers at once that nothing changed would be asked without end.
                if unchanged && !context.remaining().is_zero() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            Err(fault) => {
                let again = match fault.class {
                    FaultClass::Invalid | FaultClass::Unsupported | FaultClass::NotFound => {
                        CHANGES_UNKNOWN
                    }
                    FaultClass::Unreachable | FaultClass::Unauthorized | FaultClass::Refused => {
                        WATCH_AGAIN
                    }
                };
                tracing::debug!(%fault, "changes are not told; volumes are asked for by the clock");
                tokio::time::sleep(again).await;
            }
        }
    }
}

/// The file whose change is news, if there is one.
pub(crate) fn watched(config: &ProvisionerConfig) -> Option<PathBuf> {
    match config {
        ProvisionerConfig::Fixed { inventory, .. } => Some(inventory.clone()),
        ProvisionerConfig::None
        | ProvisionerConfig::KumoScale { .. }
        | ProvisionerConfig::Http { .. }
        | ProvisionerConfig::Exec { .. } => None,
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

/// Checks what the backend reads. Says what was found, or what is wrong; a file that is not there
/// is a provisioner that is away, which is no error of the configuration.
pub(crate) fn check(config: &ProvisionerConfig) -> Result<Option<String>, String> {
    match config {
        ProvisionerConfig::None
        | ProvisionerConfig::Http { .. }
        | ProvisionerConfig::Exec { .. } => Ok(None),
        ProvisionerConfig::Fixed { inventory, .. } => check_inventory(inventory),
        ProvisionerConfig::KumoScale { addresses, conf, access, .. } => {
            match kumoscale_client(addresses, conf, access) {
                Ok((client, warnings)) => {
                    let shown: Vec<String> =
                        client.endpoints.iter().map(ToString::to_string).collect();
                    let mut lines: Vec<String> =
                        warnings.iter().map(|warning| format!("warning: {warning}")).collect();
                    lines.push(format!("the provisioner is at {}", shown.join(" or ")));
                    Ok(Some(lines.join("\n")))
                }
                Err(why) => Err(why),
            }
        }
    }
}

fn check_inventory(inventory: &Path) -> Result<Option<String>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_file_of_the_vendors_is_a_provisioner_that_is_away_and_says_why() {
        let conf = PathBuf::from("/nonexistent/provisioner.conf");
        let config = ProvisionerConfig::KumoScale {
            addresses: Vec::new(),
            conf,
            access: Access::default(),
            host_id: None,
            state: PathBuf::from("/nonexistent/state.ron"),
        };
        assert!(check(&config).unwrap_err().contains("/nonexistent/provisioner.conf"));
        let opened = open(&config).unwrap();
        let host = HostInfo {
            nqn: "nqn.test:host".parse().unwrap(),
            id: None,
            name: "h".into(),
            version: "1".into(),
            next_within: ANNOUNCED_WITHIN,
            multipath: false,
        };
        let answer = dispatch::probe(&*opened.provisioner, &host, ANNOUNCE_LIMIT).await;
        let fault = answer.unwrap_err();
        assert_eq!(fault.class, FaultClass::Unreachable);
        assert!(fault.detail.contains("/nonexistent/provisioner.conf"), "{fault}");
    }
}
