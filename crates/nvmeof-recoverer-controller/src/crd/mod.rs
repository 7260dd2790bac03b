//! Our two kinds of objects, in the shape in which people read them.
//!
//! ```text
//!   Rust types ──► schema ──► packaging/kubernetes/crds/*.yaml ──► API server
//!       ▲                                                             │
//!       └── plan's types ◄── one way back, and everything is examined again ◄── status
//! ```
//!
//! A status is a plan's state that has been outside: anybody with the right may have written it. So it
//! is read as input. What claims to be evidence is examined again, by the same function that made it;
//! a phase without what belongs to it is no phase, and nobody acts on that object.
//!
//! The price: the plan's words are said twice, here in the spelling of Kubernetes.

mod convert;
mod relocation;
mod schema;
mod target;
#[cfg(test)]
mod tests;

pub use convert::{Invalid, read, status};
pub use relocation::{
    Cause, Condition, Evidence, Failure, FenceTrouble, Held, Loss, Operator, Order, OsdName,
    OsdRelocation, OsdRelocationSpec, OsdRelocationStatus, Tries, Word,
};
pub use schema::Stamp;
pub use target::{
    AttachableNode, CephClusterRef, Exec, FabricTarget, FabricTargetSpec, FabricTargetStatus,
    Fence, Portal, TargetDevice, Transport,
};

/// Keeps an object from going while its move is under way.
pub const FINALIZER: &str = "nvme-heal.io/relocation";
/// Who we are to the API server where fields have owners.
pub const MANAGER: &str = "nvmeof-recoverer";

use kube::CustomResourceExt as _;

/// Both definitions, as they are installed.
///
/// # Errors
/// When one cannot be written as YAML, which a test excludes.
pub fn yaml() -> Result<[(&'static str, String); 2], serde_json::Error> {
    let of = |crd| Ok::<_, serde_json::Error>(schema::yaml(&serde_json::to_value(&crd)?));
    Ok([
        ("fabrictargets.yaml", of(FabricTarget::crd())?),
        ("osdrelocations.yaml", of(OsdRelocation::crd())?),
    ])
}
