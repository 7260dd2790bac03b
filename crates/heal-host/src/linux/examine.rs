//! Reads what stands on a device.

use heal_types::{Content, DeviceIdentity, NamespaceSnapshot, Outcome, RetryWhy, UnknownWhy};

use super::content::{Signatures, merge};
use super::node::Node;
use super::{LATER, LinuxHost, Step, identity, not_done, other_device, retry, stuck};
use crate::exec::argv::{self, NamespaceNode};
use crate::exec::{Call, Ended, Ending, Subject};
use crate::helper::{Exit, Report};

/// `blkid` found nothing, or could not even open the device.
const BLKID_NOTHING: i32 = 2;

/// `blkid` found signatures that exclude each other.
const BLKID_AMBIVALENT: i32 = 8;

impl LinuxHost {
    pub(super) fn examine(&self, device: &DeviceIdentity) -> Step<Content> {
        self.nobody_hangs_on(&[Subject::Namespace(device.namespace)])?;
        let before = self.see();
        let namespace = identity::device(&before, device)?;
        let node = self.open_node(namespace, device)?;
        let content = self.content_of(device, &node)?;
        // What was read was read from this device only if it is still there under that name.
        identity::device(&self.see(), device)?;
        Ok(content)
    }

    /// The node of a device that may be opened now.
    pub(super) fn open_node(
        &self,
        namespace: &NamespaceSnapshot,
        device: &DeviceIdentity,
    ) -> Step<Node> {
        identity::reachable(namespace)?;
        self.nodes.prove(&device.device, device.dev)
    }

    /// What stands on the device. "Blank" takes two witnesses that both could read.
    pub(super) fn content_of(&self, device: &DeviceIdentity, node: &Node) -> Step<Content> {
        let named = NamespaceNode { id: device.namespace, node };
        let report = self.superblocks(device, node)?;
        let all = self.signatures(&argv::blkid(named))?;
        let beside_md = if all.names_md() {
            Some(self.signatures(&argv::blkid_beside_md(named))?)
        } else {
            None
        };
        Ok(merge(&report.traces, &all, beside_md.as_ref()))
    }

    /// Only what MD has on the device.
    pub(super) fn superblocks(&self, device: &DeviceIdentity, node: &Node) -> Step<Report> {
        let named = NamespaceNode { id: device.namespace, node };
        let ended = self.run(&argv::probe(named, device.dev));
        match &ended.ending {
            Ending::Exited(0) => serde_json::from_slice(&ended.stdout)
                .map_err(|_| Outcome::Unknown(UnknownWhy::Malformed)),
            Ending::Exited(code) => Err(match Exit::of(*code) {
                Some(Exit::OtherDevice) => other_device(ended.said()),
                Some(Exit::NotThere) => Outcome::Unknown(UnknownWhy::Vanished),
                Some(Exit::Busy) => not_done(&ended),
                Some(Exit::Failed | Exit::Usage) | None => unread(&ended),
            }),
            Ending::Signalled(_)
            | Ending::TimedOut
            | Ending::Stuck
            | Ending::Behind
            | Ending::NotStarted(_) => Err(did_not_read(&ended)),
        }
    }

    fn signatures(&self, call: &Call) -> Step<Signatures> {
        let ended = self.run(call);
        match &ended.ending {
            Ending::Exited(0) => {
                let output = String::from_utf8_lossy(&ended.stdout);
                Signatures::parse(&output).ok_or_else(|| unread(&ended))
            }
            Ending::Exited(BLKID_AMBIVALENT) => Ok(Signatures::ambivalent()),
            // Its silence about a device it could not open looks just like this.
            Ending::Exited(BLKID_NOTHING) | Ending::Exited(_) => Err(unread(&ended)),
            Ending::Signalled(_)
            | Ending::TimedOut
            | Ending::Stuck
            | Ending::Behind
            | Ending::NotStarted(_) => Err(did_not_read(&ended)),
        }
    }
}

fn unread(ended: &Ended) -> Outcome {
    tracing::warn!(said = ended.said(), "a device could not be read");
    Outcome::Unknown(UnknownWhy::ReadFailed)
}

fn did_not_read(ended: &Ended) -> Outcome {
    match &ended.ending {
        Ending::TimedOut => retry(LATER, RetryWhy::TimedOut),
        Ending::Stuck | Ending::Behind => stuck(),
        Ending::NotStarted(_) => not_done(ended),
        Ending::Signalled(_) | Ending::Exited(_) => unread(ended),
    }
}
