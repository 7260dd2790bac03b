//! A target in this process: one namespace over NVMe/TCP, with the rules of the specification for
//! reservations.
//!
//! It answers only what it is asked in the way that the specification says; whatever else comes
//! ends the connection. Writes are begun and land later, as they do behind a network: a reservation
//! keeps the next one out, and only preempt-and-abort ends those that are under way. Where the
//! specification leaves a choice, it is as Linux is (`drivers/nvme/target/pr.c`), on which the same
//! contract is kept in the lab (`lab-reservation`).

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::contract::{NAMESPACE, NQN};

type HostId = [u8; 16];

/// What it says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Able {
    pub(crate) reservations: bool,
    pub(crate) exclusive_access: bool,
    pub(crate) lasting: bool,
    /// What a capsule holds, in units of 16 bytes.
    pub(crate) in_capsule: u32,
    pub(crate) authentication: bool,
    pub(crate) namespace: [u8; 16],
}

impl Default for Able {
    fn default() -> Self {
        let namespace: uuid::Uuid = NAMESPACE.parse().unwrap();
        Self {
            reservations: true,
            exclusive_access: true,
            lasting: true,
            in_capsule: 8,
            authentication: false,
            namespace: namespace.into_bytes(),
        }
    }
}

type Overtaken = Box<dyn FnOnce(&mut State) + Send>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) able: Able,
    pub(crate) registrants: Vec<(HostId, u64)>,
    pub(crate) holder: Option<HostId>,
    pub(crate) kind: u8,
    pub(crate) lasting: bool,
    /// Whose writes are not on the disk yet.
    pub(crate) under_way: Vec<HostId>,
    /// Who connected to what.
    pub(crate) connected: Vec<(HostId, String)>,
    /// Opcodes on I/O queues.
    pub(crate) asked: Vec<u8>,
    /// Writes that are under way do not end because they are to: whoever aborts them waits.
    pub(crate) slow: bool,
    /// Somebody waits for such writes: until they are over nobody registers or acquires anything.
    aborting: bool,
    /// Whose controllers are being put away; their connections end afterwards.
    leaving: Vec<HostId>,
    /// Aborting a controller that was being put away is what Linux 7.2 does not survive.
    pub(crate) crashed: bool,
    /// What somebody else does after the next report.
    pub(crate) overtaken: Option<Overtaken>,
}

#[derive(Default)]
pub(crate) struct Target(Mutex<State>);

const SUCCESS: u16 = 0;
const INVALID_FIELD: u16 = 0x02;
const CONFLICT: u16 = 0x83;

impl State {
    fn key(&self, host: HostId) -> Option<u64> {
        self.registrants.iter().find(|(it, _)| *it == host).map(|(_, key)| *key)
    }

    fn forget(&mut self, host: HostId) {
        self.registrants.retain(|(it, _)| *it != host);
        if self.holder == Some(host) {
            (self.holder, self.kind) = (None, 0);
        }
    }

    fn register(&mut self, host: HostId, how: u32, ours: u64, new: u64) -> u16 {
        match how >> 30 {
            0b11 if !self.able.lasting => return INVALID_FIELD,
            0b11 => self.lasting = true,
            0b10 => self.lasting = false,
            _ => {}
        }
        match (how & 0x7, self.key(host)) {
            (0, None) => self.registrants.push((host, new)),
            (0, Some(key)) if key == new => {}
            (1, Some(key)) if key == ours => self.forget(host),
            (2, Some(key)) if key == ours => {
                self.registrants.iter_mut().filter(|(it, _)| *it == host).for_each(|it| it.1 = new);
            }
            (0..=2, _) => return CONFLICT,
            _ => return INVALID_FIELD,
        }
        SUCCESS
    }

    fn acquire(&mut self, host: HostId, how: u32, ours: u64, other: u64) -> u16 {
        if self.key(host) != Some(ours) {
            return CONFLICT;
        }
        let kind = how.to_le_bytes()[1];
        match how & 0x7 {
            0 if self.holder.is_none() => {
                (self.holder, self.kind) = (Some(host), kind);
                SUCCESS
            }
            0 if self.holder == Some(host) && self.kind == kind => SUCCESS,
            0 => CONFLICT,
            // What the holder preempts is its own.
            1 | 2 if self.holder == Some(host) => {
                self.kind = kind;
                SUCCESS
            }
            action @ (1 | 2) => {
                let from = self.holder.filter(|it| self.key(*it) == Some(other));
                // Who takes the reservation stays; who only takes keys off loses its own as well.
                let stays = from.map(|_| host);
                let all = self.registrants.iter().filter(|(_, key)| *key == other);
                let gone: Vec<HostId> =
                    all.map(|(it, _)| *it).filter(|it| Some(*it) != stays).collect();
                if gone.is_empty() {
                    return CONFLICT;
                }
                self.crashed |= action == 2 && gone.iter().any(|it| self.leaving.contains(it));
                gone.iter().for_each(|it| self.forget(*it));
                if from.is_some() {
                    (self.holder, self.kind) = (Some(host), kind);
                }
                if action == 2 && !self.slow {
                    self.under_way.retain(|it| !gone.contains(it));
                }
                self.aborting = action == 2 && self.is_waited_for();
                SUCCESS
            }
            _ => INVALID_FIELD,
        }
    }

    fn is_waited_for(&self) -> bool {
        self.slow && self.under_way.iter().any(|it| Some(*it) != self.holder)
    }

    fn report(&self) -> Vec<u8> {
        let mut report = vec![0; 64];
        report[4] = self.kind;
        // Each of them with two controllers, as nodes with two paths have.
        report[5..7].copy_from_slice(&(2 * self.registrants.len() as u16).to_le_bytes());
        report[9] = u8::from(self.lasting);
        for (host, key) in self.registrants.iter().chain(&self.registrants) {
            let mut entry = [0; 64];
            entry[2] = u8::from(self.holder == Some(*host));
            entry[8..16].copy_from_slice(&key.to_le_bytes());
            entry[16..32].copy_from_slice(host);
            report.extend_from_slice(&entry);
        }
        report
    }
}

/// What a connection is.
#[derive(Default)]
struct Queue {
    number: Option<u16>,
    host: HostId,
    enabled: bool,
}

/// What a command brings: data, or a result; and how it ended.
type Ended = (Vec<u8>, u64, u16);

impl Target {
    pub(crate) fn set<T>(&self, set: impl FnOnce(&mut State) -> T) -> T {
        set(&mut self.0.lock().unwrap())
    }

    /// A write of a host has come in: it is under way, or the reservation forbids it.
    pub(crate) fn begin(&self, host: HostId) -> bool {
        self.set(|state| {
            let allowed = match (state.kind, state.holder) {
                (_, None) => true,
                (1 | 2, Some(holder)) => holder == host,
                _ => state.key(host).is_some(),
            };
            if allowed {
                state.under_way.push(host);
            }
            allowed
        })
    }

    pub(crate) fn land(&self) {
        self.set(|state| state.under_way.clear());
    }

    pub(crate) async fn listen(target: Arc<Self>) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = Arc::clone(&target);
                tokio::spawn(async move { target.serve(stream).await });
            }
        });
        port
    }

    async fn serve(&self, mut stream: TcpStream) {
        let mut queue = Queue::default();
        let _ = self.talk(&mut stream, &mut queue).await;
        self.set(|state| state.leaving.push(queue.host));
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        self.set(|state| {
            let one = state.leaving.iter().position(|it| *it == queue.host);
            one.map(|one| state.leaving.swap_remove(one));
        });
    }

    async fn talk(&self, stream: &mut TcpStream, queue: &mut Queue) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut first = [0; 128];
        stream.read_exact(&mut first).await?;
        assert_eq!((first[0], first[2], first[4]), (0, 128, 128), "no connection begins so");
        first[0] = 1;
        stream.write_all(&first).await?;
        loop {
            let mut header = [0; 72];
            stream.read_exact(&mut header).await?;
            assert_eq!((header[0], header[2]), (4, 72), "no command");
            let all = u32::from_le_bytes(*header[4..].first_chunk().unwrap());
            let mut data = vec![0; all as usize - 72];
            stream.read_exact(&mut data).await?;
            let command: &[u8; 64] = header[8..].first_chunk().unwrap();
            let changes = matches!(command[0], 0x0d | 0x11);
            while changes && self.set(|state| state.aborting) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let (answer, result, status) = self.carry_out(queue, command, &data);
            // It has the reservation by then, and hears of it when nothing is under way any more.
            if changes && self.set(|state| state.aborting) {
                while self.set(|state| state.is_waited_for()) {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                self.set(|state| state.aborting = false);
            }
            let id = [command[2], command[3]];
            // In two pieces, as a long answer may come.
            let (one, other) = answer.split_at(answer.len() / 8 * 4);
            for (at, piece) in [(0, one), (one.len(), other)] {
                if !piece.is_empty() {
                    let mut unit = vec![0; 24];
                    (unit[0], unit[2], unit[3]) = (7, 24, 24);
                    unit[4..8].copy_from_slice(&(24 + piece.len() as u32).to_le_bytes());
                    unit[8..10].copy_from_slice(&id);
                    unit[12..16].copy_from_slice(&(at as u32).to_le_bytes());
                    unit[16..20].copy_from_slice(&(piece.len() as u32).to_le_bytes());
                    unit.extend_from_slice(piece);
                    stream.write_all(&unit).await?;
                }
            }
            let mut unit = [0; 24];
            (unit[0], unit[2], unit[4]) = (5, 24, 24);
            unit[8..16].copy_from_slice(&result.to_le_bytes());
            unit[20..22].copy_from_slice(&id);
            unit[22..24].copy_from_slice(&(status << 1).to_le_bytes());
            stream.write_all(&unit).await?;
        }
    }

    fn carry_out(&self, queue: &mut Queue, command: &[u8; 64], data: &[u8]) -> Ended {
        let word = |at: usize| u32::from_le_bytes(*command[at..].first_chunk().unwrap());
        let invalid = (Vec::new(), 0, INVALID_FIELD);
        match (command[0], queue.number) {
            (0x7f, None) if command[4] == 0x01 => self.connect(queue, word(40) >> 16, data),
            (0x7f, Some(0)) if command[4] == 0x00 => {
                queue.enabled = word(44) == 0x14 && word(48) & 1 == 1;
                (Vec::new(), 0, SUCCESS)
            }
            (0x7f, Some(0)) if command[4] == 0x04 && word(44) == 0x1c => {
                (Vec::new(), u64::from(queue.enabled), SUCCESS)
            }
            (0x09, Some(0)) if queue.enabled => (Vec::new(), 0, SUCCESS),
            (0x06, Some(0)) if queue.enabled => self.identify(word(4), word(40) & 0xff),
            (opcode @ (0x0d | 0x0e | 0x11), Some(1)) if word(4) == 1 => self.set(|state| {
                state.asked.push(opcode);
                let key = |at: usize| u64::from_le_bytes(*data[at..].first_chunk().unwrap());
                match opcode {
                    0x0d => (vec![], 0, state.register(queue.host, word(40), key(0), key(8))),
                    0x11 => (vec![], 0, state.acquire(queue.host, word(40), key(0), key(8))),
                    // On a fabric hosts' ids are long.
                    _ if word(44) & 1 == 0 => invalid,
                    _ => {
                        let mut report = state.report();
                        report.truncate(4 * (word(40) as usize + 1));
                        if let Some(overtaken) = state.overtaken.take() {
                            overtaken(state);
                        }
                        (report, 0, SUCCESS)
                    }
                }
            }),
            _ => invalid,
        }
    }

    fn connect(&self, queue: &mut Queue, number: u32, data: &[u8]) -> Ended {
        let text = |at: usize| {
            let text = data[at..at + 256].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(text.to_vec()).unwrap()
        };
        let controller = u16::from_le_bytes([data[16], data[17]]);
        assert_eq!(controller, if number == 0 { 0xffff } else { 7 });
        queue.number = Some(u16::try_from(number).unwrap());
        queue.host = *data.first_chunk().unwrap();
        self.set(|state| {
            state.connected.push((queue.host, text(256)));
            let known = text(256) == NQN && text(512).starts_with("nqn.");
            let result = 7 | u64::from(state.able.authentication) << 16;
            (Vec::new(), result, if known { SUCCESS } else { INVALID_FIELD })
        })
    }

    fn identify(&self, namespace: u32, what: u32) -> Ended {
        let able = self.set(|state| state.able.clone());
        let mut page = vec![0; 4096];
        match (what, namespace) {
            (0, 1) => page[31] = u8::from(able.lasting) | u8::from(able.exclusive_access) << 2,
            (1, 0) => {
                page[520] = u8::from(able.reservations) << 5;
                page[1792..1796].copy_from_slice(&able.in_capsule.to_le_bytes());
            }
            (2, 0) => page[0] = 1,
            (3, 1) => {
                // Another kind of id stands before it.
                (page[0], page[1], page[4]) = (1, 8, 0x55);
                (page[12], page[13]) = (3, 16);
                page[16..32].copy_from_slice(&able.namespace);
            }
            _ => return (Vec::new(), 0, INVALID_FIELD),
        }
        (page, 0, SUCCESS)
    }
}
