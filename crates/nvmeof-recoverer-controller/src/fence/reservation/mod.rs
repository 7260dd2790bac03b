//! The fence of a target that knows NVMe reservations: the namespace itself lets one host write.
//!
//! ```text
//!                 holder of the reservation (exclusive access)      who may write
//!   at rest       the node, key  node·6                             the node
//!   close 7       we, key  closing·7 preempt-and-abort of node·6    nobody, but what the node has under
//!                                                                   way lands: we wait for its end
//!                 we, key  closed·7  our key by another             nobody: we never do
//!   admit 7       the new node, key  node·7   preempt of closed·7   the new node
//! ```
//!
//! The key is the fencing token, and the target compares it: whoever takes the reservation over
//! says from which key, and is refused when another one is there by then. So a leader that slept
//! through its own replacement can neither close nor admit, and between looking and acting no
//! moment is left.
//!
//! The reservation is ours before what the node has under way is over, and a leader may die in
//! between. So the key says whether that was waited for, and who finds it said that it was not
//! begins again: gives the reservation back in the node's name, and takes it anew.
//!
//! A reservation belongs to a host's id. We connect under the new node's name to reserve for it,
//! before it connects itself; the node runs nothing for this and knows nothing of it. And where
//! nobody has reserved a namespace yet, we do it in the names of those who may be using it, because
//! what they have under way is ended, and waited for, only when something is taken from them.
//!
//! A kernel's own target looks at each controller of a host whose writes it is to end, and Linux 7.2
//! does not survive it when one of them is just being put away. The host's own are not ours to
//! keep; of those that we had in its name none is leaving then. They stay until all is over, are
//! seen off afterwards, and none is made while an earlier leader's preemption is still waited for.
//! Where the reservation is taken from us there is nothing to end.
//!
//! What is not proof: a reservation that others can write under, and one that a loss of power ends
//! (Linux targets have no other), because a host that was fenced off writes again when the target is
//! back. Such a target is refused before anything is done. A person may say of one that it admits
//! nobody after a loss of power; then the second kind is proof as well (`untilPowerLoss`).
//!
//! The price: each subsystem must admit one more host, us; the way is NVMe/TCP without TLS (see
//! `host`); and a host that reserves for itself is believed, as the fabric believes every host's
//! id.

mod host;
mod wire;

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use heal_types::cluster::Generation;
use heal_types::fence::Told;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::{Device, FenceHealth};

use self::host::{Identity, Session, Trouble};
use self::wire::{EXCLUSIVE_ACCESS, HostId, Registrant, Reservation};
use super::{Ask, Fence, Host, Verb, answer, health};
use crate::crd::{self, AttachableNode, FabricTargetSpec, Transport};

/// How long all of a question may take. What a node has under way is waited for in it; a target
/// whose disk is dead takes longer, and is asked again.
const DEADLINE: Duration = Duration::from_secs(20);

/// How long a portal has the question for itself before the next one is asked as well.
const HEAD_START: Duration = Duration::from_millis(500);

/// A reservation's key, as we give them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Key {
    role: Role,
    generation: Generation,
}

/// Whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Ours: nobody writes.
    Closed,
    /// A node's.
    Node,
    /// Ours, and what somebody had under way may not be over.
    Closing,
}

/// The upper sixteen bits of a key of ours; the others are the token.
const CLOSED: u64 = 0x6e76;
const NODE: u64 = 0x6e77;
const CLOSING: u64 = 0x6e78;
const TOKEN: u32 = 48;

/// A node's that no move let in: older than any move's.
const ADOPTED: u64 = NODE << TOKEN;

impl Key {
    fn read(key: u64) -> Option<Self> {
        let role = match key >> TOKEN {
            CLOSED => Role::Closed,
            NODE => Role::Node,
            CLOSING => Role::Closing,
            _ => return None,
        };
        Some(Self { role, generation: Generation(key & ((1 << TOKEN) - 1)) })
    }

    fn number(self) -> u64 {
        let role = match self.role {
            Role::Closed => CLOSED,
            Role::Node => NODE,
            Role::Closing => CLOSING,
        };
        role << TOKEN | self.generation.0
    }

    fn of(role: Role, generation: Generation) -> Result<Self, Stop> {
        match generation.0 >> TOKEN {
            0 => Ok(Self { role, generation }),
            _ => Err(Stop::Refused("no key has room for such a token".to_owned())),
        }
    }
}

/// Why a question ends without having been answered.
#[derive(Debug)]
enum Stop {
    Again(String),
    Refused(String),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Conflict | Trouble::Lost(_) => Self::Again(trouble.to_string()),
            Trouble::Unable(why) => Self::Refused(why),
        }
    }
}

/// The connections of a question: they last as long as it does.
#[derive(Default)]
struct Opened {
    us: Option<Session>,
    nodes: Vec<Session>,
}

impl Opened {
    async fn end(self) {
        let all = self.us.into_iter().chain(self.nodes);
        all.map(Session::end).collect::<FuturesUnordered<_>>().collect::<()>().await;
    }
}

/// A target whose namespaces can be reserved.
#[derive(Debug, Clone)]
pub struct ReservationFence {
    us: crd::Reservation,
    transport: Transport,
    portals: Vec<SocketAddr>,
    devices: Vec<Device>,
    nodes: Vec<AttachableNode>,
}

impl ReservationFence {
    /// The target of that description, asked under our own name.
    #[must_use]
    pub fn new(us: crd::Reservation, target: &FabricTargetSpec) -> Self {
        let device = |it: &crd::TargetDevice| Device {
            subsystem: it.subsystem.clone(),
            namespace: it.namespace,
        };
        Self {
            us,
            transport: target.transport,
            portals: target.portals.iter().map(|it| (it.address, it.port).into()).collect(),
            devices: target.devices.iter().map(device).collect(),
            nodes: target.nodes.clone(),
        }
    }

    fn ourselves(&self) -> Result<Identity, Stop> {
        Ok(Identity { name: self.us.host_nqn.clone(), id: host_id(&self.us.host_id)? })
    }

    /// A node, as the target lists it.
    fn node(&self, host: &Host) -> Result<Identity, Stop> {
        let known = self.nodes.iter().find(|it| it.name == host.node);
        let Some(node) = known.filter(|it| host.host_nqn.as_ref() == Some(&it.host_nqn)) else {
            return Err(Stop::Refused(format!("the target does not list {}", host.node)));
        };
        let id = host_id(&node.host_id)?;
        if id == host_id(&self.us.host_id)? {
            return Err(Stop::Refused(format!("{} has the fence's own host id", host.node)));
        }
        Ok(Identity { name: node.host_nqn.clone(), id })
    }

    /// A connection by the first portal that answers.
    async fn open(&self, who: &Identity, device: &Device) -> Result<Session, Stop> {
        if self.transport != Transport::Tcp {
            return Err(Stop::Refused("only NVMe/TCP can be asked for reservations".to_owned()));
        }
        // One that is away must not take the time of the next.
        let mut opened: FuturesUnordered<_> = (0..)
            .zip(&self.portals)
            .map(|(others, portal)| async move {
                tokio::time::sleep(HEAD_START * others).await;
                let opened = Session::open(*portal, who, device, self.us.until_power_loss);
                (portal, tokio::time::timeout(DEADLINE / 4, opened).await)
            })
            .collect();
        let mut troubles = Vec::new();
        while let Some((portal, opened)) = opened.next().await {
            match opened {
                Ok(Ok(session)) => return Ok(session),
                Ok(Err(trouble @ Trouble::Unable(_))) => return Err(trouble.into()),
                Ok(Err(trouble)) => troubles.push(format!("{portal}: {trouble}")),
                Err(_) => troubles.push(format!("{portal}: no answer")),
            }
        }
        Err(Stop::Again(troubles.join("; ")))
    }

    /// As a node.
    async fn open_as<'a>(
        &self,
        who: &Identity,
        device: &Device,
        nodes: &'a mut Vec<Session>,
    ) -> Result<&'a mut Session, Stop> {
        nodes.push(self.open(who, device).await?);
        Ok(nodes.last_mut().expect("it was put there"))
    }

    /// Whether the first device could be fenced now: the others are the same target's.
    async fn look(&self, opened: &mut Opened) -> Result<Told, Stop> {
        let device = self.devices.first();
        let device = device.ok_or_else(|| Stop::Again("there are no devices".to_owned()))?;
        opened.us.insert(self.open(&self.ourselves()?, device).await?).report().await?;
        Ok(Told::Done {})
    }

    async fn carry_out(&self, ask: &Ask, opened: &mut Opened) -> Result<Told, Stop> {
        let Opened { us, nodes } = opened;
        let us = us.insert(self.open(&self.ourselves()?, &ask.device).await?);
        let seen = us.report().await?;
        not_newer(&seen, ask)?;
        match &ask.verb {
            Verb::Report => Ok(told(&seen, us.host, self.us.until_power_loss)),
            Verb::Close => self.close(us, nodes, seen, ask).await.map(|()| Told::Done {}),
            Verb::Admit(host) => self.admit(us, nodes, seen, ask, host).await,
        }
    }

    /// The reservation is ours, and what anybody had under way is over.
    async fn close(
        &self,
        us: &mut Session,
        nodes: &mut Vec<Session>,
        seen: Reservation,
        ask: &Ask,
    ) -> Result<(), Stop> {
        if let Some(stranger) = seen.registrants.iter().find(|it| Key::read(it.key).is_none()) {
            let key = stranger.key;
            return Err(Stop::Refused(format!("key {key:#x} of somebody else is registered")));
        }
        if seen.holder().is_some() && seen.kind != EXCLUSIVE_ACCESS {
            return Err(Stop::Refused("it is reserved in another way".to_owned()));
        }
        let closed = Key::of(Role::Closed, ask.generation)?.number();
        let ours = seen.holder().filter(|it| it.host == us.host).map(|it| it.key);
        match ours.filter(|key| role(*key) == Some(Role::Closed)) {
            // Since then nobody has had access, whichever move it was for.
            Some(key) if key == closed => {}
            Some(older) => us.replace(older, closed).await?,
            None => self.take(us, nodes, seen, ask, closed).await?,
        }
        self.forget(&us.report().await?, us.host, &ask.device, nodes).await
    }

    /// Takes the reservation from whoever has it, and says so by our key when all is over.
    async fn take(
        &self,
        us: &mut Session,
        nodes: &mut Vec<Session>,
        seen: Reservation,
        ask: &Ask,
        closed: u64,
    ) -> Result<(), Stop> {
        if let Some(ours) = seen.holder().filter(|it| it.host == us.host) {
            // Changes nothing, and is answered when what an earlier leader began is over.
            us.register(ours.key).await?;
        }
        let lasts = |it: &Registrant| role(it.key) == Some(Role::Node) && it.key != ADOPTED;
        let seen = if seen.holder().is_some_and(lasts) {
            seen
        } else {
            for holder in &ask.holders {
                self.reserve_for(holder, ask, nodes).await?;
            }
            us.report().await?
        };
        // What it is taken from was seen when nobody newer was there, and the target compares it.
        not_newer(&seen, ask)?;
        let Some(holder) = seen.holder().filter(|it| it.host != us.host) else {
            return Err(Stop::Refused("nobody is known to use it".to_owned()));
        };
        let closing = Key::of(Role::Closing, ask.generation)?.number();
        us.is_known_as(&seen, closing).await?;
        us.preempt_and_abort(closing, holder.key).await?;
        Ok(us.replace(closing, closed).await?)
    }

    /// In the name of one who may be using it. All of them have the same key: whoever takes the
    /// reservation from one takes it from all.
    async fn reserve_for(
        &self,
        holder: &Host,
        ask: &Ask,
        nodes: &mut Vec<Session>,
    ) -> Result<(), Stop> {
        let node = self.open_as(&self.node(holder)?, &ask.device, nodes).await?;
        let seen = node.report().await?;
        not_newer(&seen, ask)?;
        node.is_known_as(&seen, ADOPTED).await?;
        match seen.holder() {
            None => node.acquire(ADOPTED).await?,
            Some(us) if role(us.key) == Some(Role::Closing) => {
                node.preempt(ADOPTED, us.key).await?;
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// Keys that give no access and were left behind by a move that ended early.
    async fn forget(
        &self,
        seen: &Reservation,
        us: HostId,
        device: &Device,
        nodes: &mut Vec<Session>,
    ) -> Result<(), Stop> {
        for other in seen.registrants.iter().filter(|it| it.host != us) {
            let listed =
                |it: &&AttachableNode| host_id(&it.host_id).is_ok_and(|id| id == other.host);
            let Some(node) = self.nodes.iter().find(listed) else {
                let key = other.key;
                return Err(Stop::Refused(format!("key {key:#x} is that of no listed node")));
            };
            let who = Identity { name: node.host_nqn.clone(), id: other.host };
            self.open_as(&who, device, nodes).await?.unregister(other.key).await?;
        }
        Ok(())
    }

    /// The reservation goes from us to a host, in one step that fails if we do not have it any
    /// more.
    async fn admit(
        &self,
        us: &mut Session,
        nodes: &mut Vec<Session>,
        seen: Reservation,
        ask: &Ask,
        host: &Host,
    ) -> Result<Told, Stop> {
        let who = self.node(host)?;
        let ours = Key::of(Role::Closed, ask.generation)?.number();
        let theirs = Key::of(Role::Node, ask.generation)?.number();
        let has = |host: HostId, key: u64| {
            move |it: &&Registrant| it.holds && (it.host, it.key) == (host, key)
        };
        if seen.holder().filter(has(who.id, theirs)).is_some() {
            return Ok(Told::Done {});
        }
        if seen.holder().filter(has(us.host, ours)).is_none() {
            // Where a person's word was the proof, nobody closed it.
            self.close(us, nodes, seen, ask).await?;
        }
        let node = self.open_as(&who, &ask.device, nodes).await?;
        let seen = node.report().await?;
        node.is_known_as(&seen, theirs).await?;
        node.preempt(theirs, ours).await?;
        let now = node.report().await?;
        if now.kind != EXCLUSIVE_ACCESS || now.holder().filter(has(who.id, theirs)).is_none() {
            return Err(Stop::Again("the reservation went elsewhere".to_owned()));
        }
        Ok(Told::Done {})
    }
}

#[async_trait]
impl Fence for ReservationFence {
    async fn health(&self) -> FenceHealth {
        let mut opened = Opened::default();
        let asked = tokio::time::timeout(DEADLINE, self.look(&mut opened)).await;
        let told = said(asked.unwrap_or_else(|_| late()));
        opened.end().await;
        if let Err(why) | Ok(Told::Refused(why)) = &told {
            tracing::debug!(why, "a fence is not ready");
        }
        health(&told)
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        let mut opened = Opened::default();
        let asked = tokio::time::timeout(DEADLINE, self.carry_out(ask, &mut opened)).await;
        opened.end().await;
        answer(said(asked.unwrap_or_else(|_| late())))
    }
}

fn late() -> Result<Told, Stop> {
    Err(Stop::Again(format!("the target did not answer in {} s", DEADLINE.as_secs())))
}

fn said(told: Result<Told, Stop>) -> Result<Told, String> {
    match told {
        Ok(told) => Ok(told),
        Err(Stop::Refused(why)) => Ok(Told::Refused(why)),
        Err(Stop::Again(why)) => Err(why),
    }
}

fn host_id(text: &str) -> Result<HostId, Stop> {
    let id = text.parse::<uuid::Uuid>();
    id.map(uuid::Uuid::into_bytes).map_err(|_| Stop::Refused(format!("{text} is no host id")))
}

fn role(key: u64) -> Option<Role> {
    Key::read(key).map(|it| it.role)
}

fn not_newer(seen: &Reservation, ask: &Ask) -> Result<(), Stop> {
    if newest(seen) > ask.generation {
        return Err(Stop::Refused("a newer move was here".to_owned()));
    }
    Ok(())
}

/// The newest token that any key here says.
fn newest(seen: &Reservation) -> Generation {
    let tokens = seen.registrants.iter().filter_map(|it| Key::read(it.key));
    tokens.map(|it| it.generation).max().unwrap_or(Generation(0))
}

/// A report in the plan's words. A holder that is not us can write: its key is among the others.
fn told(seen: &Reservation, us: HostId, until_power_loss: bool) -> Told {
    let ours = |it: &&Registrant| it.holds && it.host == us && role(it.key) == Some(Role::Closed);
    let holder = seen.registrants.iter().find(ours);
    let others = seen.registrants.iter().filter(|it| !ours(it)).map(|it| it.key);
    Told::Reservation {
        holder: newest(seen),
        others: others.collect(),
        exclusive: holder.is_some()
            && seen.kind == EXCLUSIVE_ACCESS
            && (seen.lasting || until_power_loss),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whose_it_is_and_its_token() {
        for role in [Role::Closed, Role::Node, Role::Closing] {
            let key = Key::of(role, Generation(7)).unwrap();
            assert_eq!(Key::read(key.number()), Some(key));
        }
        assert!(Key::of(Role::Closed, Generation(1 << TOKEN)).is_err());
        assert_eq!(Key::read(7), None, "somebody else's");
    }

    #[test]
    fn only_our_own_lasting_exclusive_reservation_without_another_key_is_said_to_be_closed() {
        let key = |role| Key { role, generation: Generation(7) }.number();
        let us = Registrant { host: [1; 16], key: key(Role::Closed), holds: true };
        let node = Registrant { host: [2; 16], key: key(Role::Node), holds: false };
        let closed = Reservation { kind: EXCLUSIVE_ACCESS, lasting: true, registrants: vec![us] };
        let proof = Told::Reservation { holder: Generation(7), others: vec![], exclusive: true };
        assert_eq!(told(&closed, us.host, false), proof);
        let fleeting = Reservation { lasting: false, ..closed.clone() };
        assert_eq!(told(&fleeting, us.host, true), proof, "a person says that it is enough");
        let admitted = Registrant { holds: true, ..node };
        for open in [
            Reservation { kind: 1, ..closed.clone() },
            Reservation { lasting: false, ..closed.clone() },
            Reservation { registrants: vec![us, node], ..closed.clone() },
            Reservation { registrants: vec![admitted], ..closed.clone() },
            Reservation {
                registrants: vec![Registrant { key: key(Role::Closing), ..us }],
                ..closed.clone()
            },
            Reservation { registrants: vec![Registrant { holds: false, ..us }], ..closed.clone() },
        ] {
            let Told::Reservation { others, exclusive, .. } = told(&open, us.host, false) else {
                panic!()
            };
            assert!(!others.is_empty() || !exclusive, "{open:?}");
        }
    }
}
