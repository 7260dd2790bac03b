//! What people and vendors write: configuration, inventories, answers, requests.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use heal_provisioner::fixed::{Fixed, FixedPaths, check_inventory};
use heal_provisioner::{CallContext, Capabilities, HostInfo, Provisioner, ReplicaRef, async_trait};
use heal_types::control::{Envelope, MAX_REQUEST, PROTOCOL, Request, Response};
use heal_types::{
    ArrayId, CallKey, Condition, FaultClass, GracePolicy, ProvisionerAnswer, ProvisionerCall,
    ProvisionerFault, Replacement, Volume, VolumeId, VolumeQuery, WallTime,
};
use tokio::runtime::{Builder, Runtime};

use crate::disk::scratch;
use crate::inputs::{cuts, fit_for_people, survives_json};

/// The longest grace period that is believed of a vendor.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match nvme_heald::fuzzing::config(text) {
        Ok(canonical) => {
            let again = nvme_heald::fuzzing::config(&canonical);
            assert_eq!(again.as_ref(), Ok(&canonical), "it is read back as another");
            half_is_refused(text, |half| nvme_heald::fuzzing::config(half).is_ok());
        }
        Err(why) => fit_for_people(&why),
    }
}

/// Text that ends in `)` was read; without that, or less, it must not be.
fn half_is_refused(text: &str, is_read: impl Fn(&str) -> bool) {
    let Some(end) = text.rfind(')') else { return };
    // What follows the last bracket may be a remark that has brackets of its own.
    if text[end + 1..].trim().is_empty() && !text.contains("//") && !text.contains("/*") {
        for cut in cuts(end).filter(|cut| text.is_char_boundary(*cut)).step_by(8) {
            assert!(!is_read(&text[..cut]), "cut at {cut}, it was read");
        }
    }
}

pub(crate) fn inventory(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let checked = check_inventory(text, "volumes.ron");
    match &checked {
        Ok(_) => half_is_refused(text, |half| check_inventory(half, "volumes.ron").is_ok()),
        Err(why) => {
            fit_for_people(&why.to_string());
            return;
        }
    }
    let directory = scratch("inventory");
    let paths = FixedPaths {
        inventory: directory.join("volumes.ron"),
        state: directory.join("fixed-state.ron"),
    };
    fs::write(&paths.inventory, text).expect("there is room for a file");
    let _ = fs::remove_file(&paths.state);
    let backend = Fixed::new(paths);
    for call in [find(ARRAY), request("vol-7", "r1")] {
        believed(ask(&backend, &call));
    }
}

pub(crate) const ARRAY: &str = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233";
const INVENTORY: &str = include_str!("../../../packaging/config/volumes.example.ron");

/// The notes beside the example of an inventory.
pub(crate) fn fixed_state(bytes: &[u8]) {
    let directory = scratch("fixed-state");
    let paths = FixedPaths {
        inventory: directory.join("volumes.ron"),
        state: directory.join("fixed-state.ron"),
    };
    fs::write(&paths.inventory, INVENTORY).expect("there is room for a file");
    fs::write(&paths.state, bytes).expect("there is room for a file");
    let backend = Fixed::new(paths.clone());
    let report = ProvisionerCall::Report {
        volume: id("vol-7"),
        replica: "r1".parse().expect("an id"),
        condition: Condition::Missing,
        since: WallTime(1),
        key: "a/1".parse().expect("a key"),
    };
    let readable = match ask(&backend, &find(ARRAY)) {
        Err(fault) if fault.class == FaultClass::Invalid => false,
        answer => {
            believed(answer);
            true
        }
    };
    let noted = ask(&backend, &report);
    let granted = ask(&backend, &request("vol-7", "r1"));
    if readable {
        // Whatever was noted can be read again.
        believed(ask(&Fixed::new(paths.clone()), &find(ARRAY)));
        // A repetition is answered as the first time.
        assert_eq!(ask(&backend, &request("vol-7", "r1")), granted);
    } else {
        assert!(noted.is_err() && granted.is_err(), "it went on from notes it cannot read");
        assert_eq!(fs::read(&paths.state).expect("it is there"), bytes, "it was written over");
    }
}

/// A vendor that says one thing.
#[derive(Debug)]
struct Vendor(Volume);

#[async_trait]
impl Provisioner for Vendor {
    fn name(&self) -> &str {
        "vendor"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacement: true, publish: false, forward: false }
    }

    async fn probe(&self, _: &CallContext, _: &HostInfo) -> Result<(), ProvisionerFault> {
        Ok(())
    }

    async fn find_volume(
        &self,
        _: &CallContext,
        _: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        Ok(Some(self.0.clone()))
    }

    async fn report(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &Condition,
        _: WallTime,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        Ok(())
    }

    async fn request_replacement(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &str,
        _: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        Ok(match self.0.replicas.last() {
            Some(replica) => Replacement::Granted(replica.clone()),
            None => Replacement::Pending { after: Duration::MAX },
        })
    }

    async fn confirm_removed(
        &self,
        _: &CallContext,
        _: ReplicaRef<'_>,
        _: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        Ok(())
    }
}

pub(crate) fn volume(bytes: &[u8]) {
    let Ok(volume) = serde_json::from_slice::<Volume>(bytes) else { return };
    survives_json(&volume);
    let vendor = Vendor(volume);
    believed(ask(&vendor, &find(ARRAY)));
    if let Ok(ProvisionerAnswer::Replacement(Replacement::Granted(replica))) =
        ask(&vendor, &request("vol-7", "r1"))
    {
        assert!(replica.state.is_offered() && replica.id.as_str() != "r1");
        assert!(!replica.target.portals.is_empty());
    }
}

/// What passes for an answer has no contradictions, and a fault can be shown.
pub(crate) fn believed(answer: Result<ProvisionerAnswer, ProvisionerFault>) {
    match answer {
        Ok(ProvisionerAnswer::Volume(Some(volume))) => {
            assert_eq!(volume.check(), Ok(()));
            assert!(volume.array.is_none_or(|array| array.to_string() == ARRAY), "another array's");
            match volume.grace {
                Some(GracePolicy::After(grace)) => assert!(grace <= YEAR),
                Some(GracePolicy::Never) | None => {}
            }
            for target in volume.replicas.iter().map(|replica| &replica.target) {
                assert!(target.size.is_none_or(|size| size.0 > 0));
                assert!(target.portals.iter().all(|portal| portal.port > 0));
            }
        }
        Ok(
            ProvisionerAnswer::Volume(None)
            | ProvisionerAnswer::Noted
            | ProvisionerAnswer::Replacement(_),
        ) => {}
        Err(fault) => {
            assert!(!fault.detail.contains('\n'), "{fault}");
            fit_for_people(&fault.to_string());
        }
    }
}

pub(crate) fn ask(
    backend: &dyn Provisioner,
    call: &ProvisionerCall,
) -> Result<ProvisionerAnswer, ProvisionerFault> {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    RUNTIME.block_on(heal_provisioner::call(backend, call, Duration::from_secs(20)))
}

pub(crate) fn find(array: &str) -> ProvisionerCall {
    let array: ArrayId = array.parse().expect("an array's UUID");
    ProvisionerCall::FindVolume(VolumeQuery { array, alias: "db".parse().ok() })
}

pub(crate) fn request(volume: &str, lost: &str) -> ProvisionerCall {
    ProvisionerCall::RequestReplacement {
        volume: id(volume),
        lost: lost.parse().expect("an id"),
        why: "it is lost".to_owned(),
        key: "a/2".parse().expect("a key"),
    }
}

fn id(volume: &str) -> VolumeId {
    volume.parse().expect("an id")
}

pub(crate) fn control(bytes: &[u8]) {
    match nvme_heald::fuzzing::request(bytes) {
        Ok(request) => {
            assert!(bytes.len() <= MAX_REQUEST);
            let line = encoded(&request);
            assert_eq!(nvme_heald::fuzzing::request(line.as_bytes()).as_ref(), Ok(&request));
            let end = bytes.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
            for cut in cuts(end) {
                assert!(nvme_heald::fuzzing::request(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
        Err(why) => {
            let answer = serde_json::to_string(&Response::Refused(why)).expect("plain data");
            assert!(!answer.contains('\n'), "an answer of more than one line");
            assert!(answer.len() < 64 * 1024);
        }
    }
}

fn encoded(request: &Request) -> String {
    let envelope = Envelope { protocol: PROTOCOL, request: request.clone() };
    serde_json::to_string(&envelope).expect("plain data")
}
