//! A host on the fabric that never reads and never writes: it connects, asks what a namespace can
//! do, and reserves it.
//!
//! ```text
//!   TCP ─► admin queue: connect, enable, identify ─► which namespace has that id?
//!   TCP ─► I/O queue of the same controller: register, acquire, report
//! ```
//!
//! It is no kernel's: no device appears, no privilege is needed, and whatever it is connected as is
//! an argument. A reservation belongs to a host's id, so it can reserve in the name of a node that
//! is dead.
//!
//! The price: NVMe/TCP without TLS and without in-band authentication. A target that asks for one
//! of them is said to do so, and is not fenced this way.

use std::fmt;
use std::net::SocketAddr;

use heal_types::{NamespaceId, Nqn};
use nvmeof_recoverer::plan::view::Device;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::wire::{
    self, Able, Acquire, Command, Completion, Data, HostId, Identify, PAGE, Register, Reservation,
    Unit,
};

/// How long the end of a connection is waited for.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(1);

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The reservation is another one than we thought.
    Conflict,
    /// The target cannot do it.
    Unable(String),
    /// Nobody knows.
    Lost(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("somebody else was faster"),
            Self::Unable(why) | Self::Lost(why) => f.write_str(why),
        }
    }
}

type Done<T = ()> = Result<T, Trouble>;

fn lost(why: impl fmt::Display) -> Trouble {
    Trouble::Lost(why.to_string())
}

/// Who is connected, and what to.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) name: Nqn,
    pub(super) id: HostId,
}

/// A connection to one namespace.
pub(super) struct Session {
    pub(super) host: HostId,
    namespace: u32,
    /// What is reserved survives a loss of power.
    lasting: bool,
    queue: Queue,
    /// Its end is the controller's.
    admin: Queue,
}

impl Session {
    /// Connects, and looks whether a reservation of that device's namespace is a fence.
    pub(super) async fn open(
        portal: SocketAddr,
        who: &Identity,
        device: &Device,
        until_power_loss: bool,
    ) -> Done<Self> {
        let Device { subsystem, namespace: id } = device;
        let mut admin = Queue::open(portal).await?;
        let connected = admin.connect(0, 0xffff, who, subsystem).await?;
        if connected >> 16 & 0xffff != 0 {
            return Err(Trouble::Unable("it asks for authentication".to_owned()));
        }
        let controller = u16::try_from(connected & 0xffff).expect("sixteen bits of it");
        admin.ask(Command::enable(), Data::None).await?;
        while admin.ask(Command::status(), Data::None).await?.0.result & 1 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let able = Able::read(&admin.identify(Identify::Controller).await?);
        let able = able.ok_or_else(|| lost("its description is cut"))?;
        if !able.reservations {
            return Err(Trouble::Unable("its controllers know no reservations".to_owned()));
        }
        if !able.in_capsule {
            return Err(Trouble::Unable("its capsules have no room for data".to_owned()));
        }
        let namespace = admin.find(id).await?;
        let described = admin.identify(Identify::Namespace(namespace)).await?;
        let lasting = match wire::exclusive_and_lasting(&described) {
            Some((true, lasting)) if lasting || until_power_loss => lasting,
            Some((false, _)) => {
                return Err(Trouble::Unable("the namespace knows no exclusive access".to_owned()));
            }
            Some((true, _)) => {
                return Err(Trouble::Unable(
                    "its reservations do not survive a loss of power".to_owned(),
                ));
            }
            None => return Err(lost("the namespace's description is cut")),
        };
        admin.ask(Command::one_queue(), Data::None).await?;
        let mut queue = Queue::open(portal).await?;
        queue.connect(1, controller, who, subsystem).await?;
        Ok(Self { host: who.id, namespace, lasting, queue, admin })
    }

    pub(super) async fn report(&mut self) -> Done<Reservation> {
        let asked = Command::report(self.namespace, wire::REPORT);
        let (_, data) = self.queue.ask(asked, Data::In(wire::REPORT)).await?;
        Reservation::read(&data).ok_or_else(|| lost("the report is not understood"))
    }

    /// Under that key, whatever ours was when we looked.
    pub(super) async fn is_known_as(&mut self, seen: &Reservation, key: u64) -> Done {
        match seen.registrants.iter().find(|it| it.host == self.host).map(|it| it.key) {
            None => self.register(key).await,
            Some(other) if other != key => self.replace(other, key).await,
            Some(_) => Ok(()),
        }
    }

    /// Under a key, if we have none or that one.
    pub(super) async fn register(&mut self, key: u64) -> Done {
        self.registers(Register::New, 0, key).await
    }

    /// Under another key, if we still have that one.
    pub(super) async fn replace(&mut self, key: u64, by: u64) -> Done {
        self.registers(Register::Replace, key, by).await
    }

    /// No longer.
    pub(super) async fn unregister(&mut self, key: u64) -> Done {
        self.registers(Register::Not, key, 0).await
    }

    async fn registers(&mut self, how: Register, key: u64, by: u64) -> Done {
        self.with_keys(Command::register(self.namespace, how, self.lasting), key, by).await
    }

    /// The reservation, if nobody has one.
    pub(super) async fn acquire(&mut self, key: u64) -> Done {
        self.with_keys(Command::acquire(self.namespace, Acquire::New), key, 0).await
    }

    /// The reservation, from whoever has that key and has nothing under way.
    pub(super) async fn preempt(&mut self, key: u64, from: u64) -> Done {
        let command = Command::acquire(self.namespace, Acquire::Preempt);
        self.with_keys(command, key, from).await
    }

    /// The reservation, from whoever has that key; and what such hosts have under way is over when
    /// this is.
    pub(super) async fn preempt_and_abort(&mut self, key: u64, from: u64) -> Done {
        let command = Command::acquire(self.namespace, Acquire::PreemptAndAbort);
        self.with_keys(command, key, from).await
    }

    /// Leaves, and waits until the target has put its controller away.
    pub(super) async fn end(self) {
        let gone = async { tokio::join!(self.queue.end(), self.admin.end()) };
        // It is politeness: nothing depends on its success.
        let _ = tokio::time::timeout(FAREWELL, gone).await;
    }

    async fn with_keys(&mut self, command: Command, ours: u64, other: u64) -> Done {
        self.queue.ask(command, Data::Out(&wire::keys(ours, other))).await.map(drop)
    }
}

/// One queue: a TCP connection of its own, on which one command is under way at a time.
struct Queue {
    stream: TcpStream,
    asked: u16,
}

impl Queue {
    async fn open(portal: SocketAddr) -> Done<Self> {
        let stream = TcpStream::connect(portal).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        let mut queue = Self { stream, asked: 0 };
        queue.stream.write_all(&wire::initialize()).await.map_err(lost)?;
        let answer = queue.read().await?;
        match (answer.kind, answer.own.get(2..4)) {
            (wire::INITIALIZED, Some([0, 0])) => Ok(queue),
            (wire::INITIALIZED, Some(_)) => {
                Err(Trouble::Unable("it wants data aligned, or with digests".to_owned()))
            }
            _ => Err(lost("it does not begin as NVMe/TCP does")),
        }
    }

    async fn end(mut self) {
        let mut rest = [0; 64];
        if self.stream.shutdown().await.is_ok() {
            while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        }
    }

    async fn connect(
        &mut self,
        queue: u16,
        controller: u16,
        who: &Identity,
        subsystem: &Nqn,
    ) -> Done<u64> {
        let data = wire::connect_data(who.id, controller, subsystem.as_str(), who.name.as_str());
        let (done, _) = self.ask(Command::connect(queue), Data::Out(&data)).await?;
        Ok(done.result)
    }

    async fn identify(&mut self, what: Identify) -> Done<Vec<u8>> {
        Ok(self.ask(Command::identify(what), Data::In(PAGE)).await?.1)
    }

    /// The namespace with that id.
    async fn find(&mut self, id: &NamespaceId) -> Done<u32> {
        let listed = self.identify(Identify::Namespaces).await?;
        let numbers = listed.chunks_exact(4).map_while(|it| it.first_chunk());
        let numbers = numbers.map(|it| u32::from_le_bytes(*it)).take_while(|it| *it != 0);
        for number in numbers.collect::<Vec<_>>() {
            if has_id(&self.identify(Identify::Ids(number)).await?, id) {
                return Ok(number);
            }
        }
        Err(Trouble::Unable(format!("it shows no namespace {id}")))
    }

    async fn ask(&mut self, command: Command, data: Data<'_>) -> Done<(Completion, Vec<u8>)> {
        self.asked = self.asked.wrapping_add(1);
        let id = self.asked;
        self.stream.write_all(&command.capsule(id, data)).await.map_err(lost)?;
        let mut read = match data {
            Data::In(room) => vec![0; room],
            Data::None | Data::Out(_) => Vec::new(),
        };
        let strange = || lost("the answer is not understood");
        loop {
            let unit = self.read().await?;
            match unit.kind {
                wire::DATA => {
                    let named = unit.own.first_chunk().map(|it| u16::from_le_bytes(*it));
                    let at = unit.own.get(4..).and_then(|it| it.first_chunk());
                    let at = at.map(|at| u32::from_le_bytes(*at)).ok_or_else(strange)?;
                    let at = usize::try_from(at).map_err(|_| strange())?;
                    let room = read.get_mut(at..).and_then(|it| it.get_mut(..unit.data.len()));
                    let room = room.filter(|_| named == Some(id)).ok_or_else(strange)?;
                    room.copy_from_slice(&unit.data);
                    if unit.flags & wire::DATA_IS_ALL != 0 {
                        return Ok((Completion { result: 0, status: 0, id }, read));
                    }
                }
                wire::RESPONSE => {
                    let done = Completion::read(&unit.own).filter(|done| done.id == id);
                    let done = done.ok_or_else(strange)?;
                    return match done.status {
                        0 => Ok((done, read)),
                        wire::CONFLICT => Err(Trouble::Conflict),
                        // Its host, its name, its subsystem or a field are none that it takes.
                        status => Err(Trouble::Unable(format!("it answers {status:#x}"))),
                    };
                }
                wire::TERMINATED => return Err(lost("it ends the connection")),
                _ => return Err(strange()),
            }
        }
    }

    async fn read(&mut self) -> Done<Unit> {
        let mut header = [0; wire::HEADER];
        self.stream.read_exact(&mut header).await.map_err(lost)?;
        let lengths = wire::lengths(&header);
        let (own, data, all) = lengths.ok_or_else(|| lost("what it says is not NVMe/TCP"))?;
        let mut rest = vec![0; all - wire::HEADER];
        self.stream.read_exact(&mut rest).await.map_err(lost)?;
        let data = rest.split_off(data - wire::HEADER);
        rest.truncate(own - wire::HEADER);
        Ok(Unit { kind: header[0], flags: header[1], own: rest, data })
    }
}

/// Whether a list of a namespace's ids holds that one: each is a kind, a length and the id.
fn has_id(list: &[u8], wanted: &NamespaceId) -> bool {
    let (kind, bytes): (u8, &[u8]) = match wanted {
        NamespaceId::Eui(bytes) => (1, bytes),
        NamespaceId::Nguid(bytes) => (2, bytes),
        NamespaceId::Uuid(uuid) => (3, uuid.as_bytes()),
    };
    let mut rest = list;
    while let [found, length, _, _, after @ ..] = rest {
        let Some(id) = after.get(..usize::from(*length)).filter(|id| !id.is_empty()) else {
            return false;
        };
        if (*found, id) == (kind, bytes) {
            return true;
        }
        rest = &after[id.len()..];
    }
    false
}
