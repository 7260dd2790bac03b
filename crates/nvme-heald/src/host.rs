//! What the daemon needs of a host beyond looking and acting: the seam between its shell and the
//! machine it runs on, so that the shell is tested on a host that exists only in memory.

use std::collections::{BTreeMap, BTreeSet};

use heal_types::{
    ArrayId, ControllerName, DevT, HostPort, IfIndex, IoReading, Network, Portal, SocketReading,
    TransportKind,
};

/// A host the daemon can run on.
pub(crate) trait Host: HostPort + Clone + Send + 'static {
    /// Waits on the caller's thread, for a bounded time, until udev is done with a device that is
    /// about to be opened.
    fn await_settled(&self, device: DevT);

    /// Tells udev's guard which devices are managed legs.
    fn mark_managed(&self, devices: &BTreeSet<DevT>);

    /// Children that hang in the kernel now.
    fn stuck_children(&self) -> u64;

    /// The host's interfaces, and through which of them each controller leaves. `None` when that
    /// cannot be read now.
    fn wiring(&mut self, controllers: &[(ControllerName, Portal)]) -> Option<Wiring>;

    /// What the sockets of these controllers show; `None` for one whose sockets cannot be told.
    fn read_sockets(
        &mut self,
        controllers: &[ControllerName],
    ) -> Vec<(ControllerName, Option<SocketReading>)>;

    /// How far the I/O of these controllers has come.
    fn read_io(&mut self, controllers: &[ControllerName]) -> Vec<(ControllerName, IoReading)>;

    /// Goes through everything an isolation of `array` needs, and changes nothing: what was never
    /// run is slow the first time, and the first time is the one that counts.
    fn rehearse(&mut self, array: ArrayId, how: Rehearsal);

    /// Over which fabrics legs can be isolated safely, as the kernel answers now.
    fn isolation(&mut self) -> Isolation;
}

/// Whether legs may be isolated on this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Not known to be safe, and why.
    Off(String),
    /// Safe for controllers over these fabrics. Of another fabric the kernel was not asked.
    Over(BTreeSet<TransportKind>),
}

impl Isolation {
    /// Safe whatever a controller's fabric is.
    #[cfg(test)]
    pub(crate) fn whole() -> Self {
        Self::Over([TransportKind::Tcp, TransportKind::Rdma].into())
    }
}

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rehearsal {
    /// Reads what an isolation reads.
    Light,
    /// Destroys a socket as well, one made for that.
    Whole,
}

/// The host's network as paths see it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wiring {
    /// Every interface.
    pub(crate) network: Network,
    /// The interface that each controller leaves through, where it is known.
    pub(crate) egress: BTreeMap<ControllerName, IfIndex>,
}
