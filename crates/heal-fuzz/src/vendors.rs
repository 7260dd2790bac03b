//! What a vendor's server or program answers, as bytes, and the vendor's own file.

use heal_provisioner::protocol::{Carrier, Document, Remote};
use heal_provisioner::{CallContext, async_trait, kumoscale};
use heal_types::{FaultClass, ProvisionerFault};

use crate::inputs::{cuts, fit_for_people};
use crate::people::{ARRAY, ask, believed, find, request};

/// A server that says one thing.
#[derive(Debug)]
struct Says(Vec<u8>);

#[async_trait]
impl Carrier for Says {
    fn name(&self) -> &str {
        "says"
    }

    async fn carry(&self, _: &CallContext, _: Document) -> Result<Vec<u8>, ProvisionerFault> {
        Ok(self.0.clone())
    }
}

/// Each answer to each question: one that does not belong to it is a fault.
pub(crate) fn document(bytes: &[u8]) {
    let backend = Remote::new(Says(bytes.to_vec()));
    for call in [find(ARRAY), request("vol-7", "r1")] {
        let answer = ask(&backend, &call);
        let is_answer = answer.is_ok();
        believed(answer);
        let end = bytes.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
        for cut in cuts(end).filter(|_| is_answer) {
            let half = Remote::new(Says(bytes[..cut].to_vec()));
            assert!(ask(&half, &call).is_err(), "cut at {cut}, it was an answer");
        }
    }
}

/// Three lists, apart by a zero byte; and the first of them as a status.
pub(crate) fn kumoscale(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0);
    let mut part = || parts.next().unwrap_or_default();
    let (volumes, targets, backends) = (part(), part(), part());
    for status in [200, 401, 500] {
        match kumoscale::fuzzing::done(status, volumes) {
            Ok(()) => assert!(status != 401, "not authorised, and done"),
            Err(fault) => shown(&fault),
        }
    }
    match kumoscale::fuzzing::volume(volumes, targets, backends) {
        Ok(Some(_)) => {
            let end = volumes.iter().rposition(|byte| *byte == b']').unwrap_or(0);
            for cut in cuts(end) {
                let half = kumoscale::fuzzing::volume(&volumes[..cut], targets, backends);
                assert!(half.is_err(), "cut at {cut}, it was a list");
            }
        }
        Ok(None) => {}
        Err(fault) => shown(&fault),
    }
}

fn shown(fault: &ProvisionerFault) {
    fit_for_people(&fault.to_string());
    assert!(!fault.detail.contains('\n'), "{fault}");
    assert!(fault.class != FaultClass::Unsupported, "it was asked something else");
}

/// What is wrong with a file is said without what is in it that is secret.
pub(crate) fn conf(bytes: &[u8]) {
    match kumoscale::fuzzing::conf(bytes) {
        Ok(conf) => {
            assert!(!conf.endpoints.is_empty());
            for line in &conf.warnings {
                fit_for_people(line);
            }
        }
        Err(why) => {
            fit_for_people(&why);
            // Once, and as a secret: anywhere else it may be named.
            let text = String::from_utf8_lossy(bytes);
            let secret = text.contains("\ntoken = sesame\n") && text.matches("sesame").count() == 1;
            assert!(!secret || !why.contains("sesame"), "a secret is shown: {why}");
        }
    }
}
