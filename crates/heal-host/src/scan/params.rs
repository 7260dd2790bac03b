//! How a controller could be connected again.
//!
//! Once the kernel has let go of a controller nobody can ask it any more how it was connected, so
//! the answer is kept beforehand. What the kernel does not show cannot be made again: TLS with a
//! key of its own; header and data digests are for the configuration to say. Of a DH-HMAC-CHAP key
//! the kernel shows the secret itself, to root; it is compared with `none` and not kept. Where such
//! a key came from is known only if `nvme-cli` has a configuration to take it from.

use std::path::PathBuf;
use std::time::Duration;

use heal_types::{ConnectParams, Digests, KeyRef, Nqn, Observed, Portal, UnknownWhy};
use uuid::Uuid;

use crate::sysfs::{Dir, Held, Root, parsed};

/// Where `nvme-cli` keeps what it connects with, keys included.
const NVME_CONFIG: &str = "etc/nvme/config.json";

/// What cannot change in a controller's life, or must not be read later: the number of queues is
/// another one after an attempt to connect again that went wrong.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    host_nqn: Nqn,
    host_id: Option<Uuid>,
    io_queues: Option<u16>,
    keep_alive: Option<Duration>,
    keyed: Keyed,
}

/// What proves the host to the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keyed {
    Not,
    /// DH-HMAC-CHAP.
    Secret,
    /// TLS, with a key that nobody can name.
    Tls,
}

impl Fixed {
    /// Reads it. Of a controller that is not live the number of queues is not worth anything.
    pub(super) fn read(dir: &Dir, is_live: bool) -> Observed<Self> {
        match Self::facts(dir, is_live) {
            Ok(fixed) => Observed::Known(fixed),
            Err(why) => Observed::Unknown(why),
        }
    }

    fn facts(dir: &Dir, is_live: bool) -> Result<Self, UnknownWhy> {
        let io_queues: Option<u16> = shown(dir.optional("queue_count"))?;
        Ok(Self {
            host_nqn: need(dir.optional("hostnqn"))?,
            host_id: shown(dir.optional("hostid"))?,
            // One of them is the admin queue.
            io_queues: io_queues
                .and_then(|all| all.checked_sub(1))
                .filter(|queues| *queues > 0 && is_live),
            keep_alive: shown(dir.optional("kato"))?.map(Duration::from_secs),
            keyed: keyed(dir)?,
        })
    }
}

/// How the controller in `dir` could be connected again.
pub(super) fn params(
    root: &Root,
    dir: &Dir,
    nqn: &Nqn,
    portal: &Portal,
    fixed: &Observed<Fixed>,
) -> Observed<Box<ConnectParams>> {
    let fixed = match fixed {
        Observed::Known(fixed) => fixed,
        Observed::Unknown(why) => return Observed::Unknown(*why),
    };
    match put_together(root, dir, nqn, portal, fixed) {
        Ok(params) => Observed::Known(Box::new(params)),
        Err(why) => Observed::Unknown(why),
    }
}

fn put_together(
    root: &Root,
    dir: &Dir,
    nqn: &Nqn,
    portal: &Portal,
    fixed: &Fixed,
) -> Result<ConnectParams, UnknownWhy> {
    Ok(ConnectParams {
        nqn: nqn.clone(),
        portal: portal.clone(),
        host_nqn: fixed.host_nqn.clone(),
        host_id: fixed.host_id,
        io_queues: fixed.io_queues,
        keep_alive: fixed.keep_alive,
        reconnect_delay: need(span(dir, "reconnect_delay"))?,
        ctrl_loss: need(span(dir, "ctrl_loss_tmo"))?,
        key: match fixed.keyed {
            Keyed::Not => None,
            Keyed::Secret if has_config(root) => Some(KeyRef::NvmeConfig),
            Keyed::Secret | Keyed::Tls => return Err(UnknownWhy::Unsupported),
        },
        digests: Digests::default(),
    })
}

/// Seconds, or `off`, which is `None`.
fn span(dir: &Dir, name: &str) -> Observed<Option<Duration>> {
    match parsed(&dir.text(name), |text| match text {
        "off" => Some(None),
        seconds => seconds.parse().ok().map(|seconds| Some(Duration::from_secs(seconds))),
    }) {
        Observed::Unknown(UnknownWhy::Vanished) if dir.exists() => {
            Observed::Unknown(UnknownWhy::Unsupported)
        }
        other @ (Observed::Known(_) | Observed::Unknown(_)) => other,
    }
}

fn keyed(dir: &Dir) -> Result<Keyed, UnknownWhy> {
    let held = need(Held::open(dir))?;
    // Without CONFIG_NVME_TCP_TLS there is no such attribute; without TLS it is empty or not there.
    match dir.text("tls_key") {
        Observed::Known(_) => return Ok(Keyed::Tls),
        Observed::Unknown(UnknownWhy::Vanished | UnknownWhy::NotFilledYet) => {}
        Observed::Unknown(why) => return Err(why),
    }
    for name in ["dhchap_secret", "dhchap_ctrl_secret"] {
        match held.says(name, "none") {
            Observed::Known(true) | Observed::Unknown(UnknownWhy::Vanished) => {}
            Observed::Known(false) => return Ok(Keyed::Secret),
            Observed::Unknown(why) => return Err(why),
        }
    }
    Ok(Keyed::Not)
}

fn has_config(root: &Root) -> bool {
    let path: PathBuf = root.dir(NVME_CONFIG).path().to_owned();
    path.is_file()
}

fn need<T>(fact: Observed<T>) -> Result<T, UnknownWhy> {
    match fact {
        Observed::Known(value) => Ok(value),
        Observed::Unknown(why) => Err(why),
    }
}

/// A fact that older kernels do not show, and that can be done without.
fn shown<T>(fact: Observed<T>) -> Result<Option<T>, UnknownWhy> {
    match fact {
        Observed::Known(value) => Ok(Some(value)),
        Observed::Unknown(UnknownWhy::Unsupported) => Ok(None),
        Observed::Unknown(why) => Err(why),
    }
}
