//! As much of NVMe/TCP and of NVMe as a reservation needs: what goes over the wire, and what comes
//! back.
//!
//! ```text
//!   ├─ 8 bytes ──────────────┤├─ its own header ─┤├─ data ─┤
//!   type flags hlen pdo plen   command, 64 bytes   in the capsule
//!                              completion, 16
//! ```
//!
//! All numbers are little-endian. Nothing here waits or knows a socket.

/// The longest unit that is read: no answer of ours is longer than a page and a report of a
/// thousand hosts.
pub(super) const LONGEST: usize = 128 << 10;
/// The header that every unit begins with.
pub(super) const HEADER: usize = 8;
/// As much as an Identify answers with.
pub(super) const PAGE: usize = 4096;
const COMMAND: usize = 64;

pub(super) const INITIALIZE: u8 = 0x00;
pub(super) const INITIALIZED: u8 = 0x01;
pub(super) const TERMINATED: u8 = 0x03;
const CAPSULE: u8 = 0x04;
pub(super) const RESPONSE: u8 = 0x05;
pub(super) const DATA: u8 = 0x07;
/// Of data: the command was carried out, and no response follows.
pub(super) const DATA_IS_ALL: u8 = 1 << 3;

/// The status of a command that a reservation forbids.
pub(super) const CONFLICT: u16 = 0x83;

/// A host's own id on the fabric.
pub(super) type HostId = [u8; 16];

/// A unit that was read.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// What stands between its first eight bytes and its data.
    pub(super) own: Vec<u8>,
    pub(super) data: Vec<u8>,
}

/// The lengths that a unit's first eight bytes announce: of its header, to its data, and of all of
/// it.
pub(super) fn lengths(header: &[u8; HEADER]) -> Option<(usize, usize, usize)> {
    let (own, data) = (usize::from(header[2]), usize::from(header[3]));
    let all = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let all = usize::try_from(all).ok().filter(|all| *all <= LONGEST)?;
    // No data, no offset of it.
    let data = if data == 0 { all } else { data };
    (HEADER <= own && own <= data && data <= all).then_some((own, data, all))
}

fn unit(kind: u8, header: usize, own: &[u8], data: &[u8]) -> Vec<u8> {
    let mut unit = vec![0; header];
    let length = u32::try_from(header + data.len()).expect("what we send is short");
    let offset = if data.is_empty() { 0 } else { header };
    unit[0] = kind;
    unit[2] = u8::try_from(header).expect("headers are short");
    unit[3] = u8::try_from(offset).expect("headers are short");
    unit[4..HEADER].copy_from_slice(&length.to_le_bytes());
    unit[HEADER..HEADER + own.len()].copy_from_slice(own);
    unit.extend_from_slice(data);
    unit
}

/// The first unit of a connection: no digests, no alignment.
pub(super) fn initialize() -> Vec<u8> {
    unit(INITIALIZE, 128, &[], &[])
}

/// What a command does with data.
#[derive(Debug, Clone, Copy)]
pub(super) enum Data<'a> {
    None,
    Out(&'a [u8]),
    In(usize),
}

/// A command.
#[derive(Debug, Clone)]
pub(super) struct Command {
    bytes: [u8; COMMAND],
}

impl Command {
    fn new(opcode: u8, namespace: u32) -> Self {
        let mut bytes = [0; COMMAND];
        bytes[0] = opcode;
        // Where its data is stands in it.
        bytes[1] = 0x40;
        bytes[4..8].copy_from_slice(&namespace.to_le_bytes());
        Self { bytes }
    }

    fn word(mut self, at: usize, word: u32) -> Self {
        self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        self
    }

    fn fabrics(kind: u8) -> Self {
        Self::new(0x7f, u32::from(kind))
    }

    /// Of a queue to a controller: the admin queue's, or that of the I/O queue of the controller
    /// that the admin queue was given.
    pub(super) fn connect(queue: u16) -> Self {
        let depth = if queue == 0 { 31_u32 } else { 15 };
        // A controller of ours that nobody speaks to any more ends by itself.
        let patience = if queue == 0 { 30_000 } else { 0 };
        Self::fabrics(0x01).word(40, u32::from(queue) << 16).word(44, depth).word(48, patience)
    }

    /// Of a controller: it works from now on.
    pub(super) fn enable() -> Self {
        Self::fabrics(0x00).word(44, 0x14).word(48, 0x0046_0001)
    }

    /// Of a controller: whether it works.
    pub(super) fn status() -> Self {
        Self::fabrics(0x04).word(44, 0x1c)
    }

    pub(super) fn one_queue() -> Self {
        Self::new(0x09, 0).word(40, 0x07)
    }

    pub(super) fn identify(what: Identify) -> Self {
        let (namespace, what) = match what {
            Identify::Namespace(namespace) => (namespace, 0),
            Identify::Controller => (0, 1),
            Identify::Namespaces => (0, 2),
            Identify::Ids(namespace) => (namespace, 3),
        };
        Self::new(0x06, namespace).word(40, what)
    }

    /// That reservations survive a loss of power says what stands above bit 30; a target that
    /// cannot keep them is not told to.
    pub(super) fn register(namespace: u32, how: Register, lasting: bool) -> Self {
        let how = match how {
            Register::New => 0,
            Register::Not => 1,
            Register::Replace => 2,
        };
        Self::new(0x0d, namespace).word(40, how | if lasting { 0b11 << 30 } else { 0 })
    }

    /// For exclusive access: no other host reads or writes.
    pub(super) fn acquire(namespace: u32, how: Acquire) -> Self {
        let how = match how {
            Acquire::New => 0,
            Acquire::Preempt => 1,
            Acquire::PreemptAndAbort => 2,
        };
        Self::new(0x11, namespace).word(40, how | u32::from(EXCLUSIVE_ACCESS) << 8)
    }

    /// With hosts' ids of 16 bytes, as they are on a fabric.
    pub(super) fn report(namespace: u32, room: usize) -> Self {
        let words = u32::try_from(room / 4 - 1).expect("a report is short");
        Self::new(0x0e, namespace).word(40, words).word(44, 1)
    }

    /// As it is sent.
    pub(super) fn capsule(mut self, id: u16, data: Data<'_>) -> Vec<u8> {
        self.bytes[2..4].copy_from_slice(&id.to_le_bytes());
        let (kind, length, inside) = match data {
            Data::None => (0x5a, 0, &[][..]),
            Data::Out(bytes) => (0x01, bytes.len(), bytes),
            Data::In(room) => (0x5a, room, &[][..]),
        };
        let length = u32::try_from(length).expect("what we send is short");
        let mut capsule = self.word(32, length);
        capsule.bytes[39] = kind;
        unit(CAPSULE, HEADER + COMMAND, &capsule.bytes, inside)
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Identify {
    Controller,
    Namespaces,
    Namespace(u32),
    Ids(u32),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Register {
    New,
    Not,
    Replace,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Acquire {
    New,
    Preempt,
    PreemptAndAbort,
}

/// Two keys: ours, and the one that becomes ours or is taken away.
pub(super) fn keys(ours: u64, other: u64) -> [u8; 16] {
    let mut data = [0; 16];
    data[..8].copy_from_slice(&ours.to_le_bytes());
    data[8..].copy_from_slice(&other.to_le_bytes());
    data
}

/// Who connects to what.
pub(super) fn connect_data(host: HostId, controller: u16, subsystem: &str, name: &str) -> Vec<u8> {
    let mut data = vec![0; 1024];
    data[..16].copy_from_slice(&host);
    data[16..18].copy_from_slice(&controller.to_le_bytes());
    // A name has 223 bytes at most; here are 256, and a zero ends it.
    for (at, text) in [(256, subsystem), (512, name)] {
        let text = &text.as_bytes()[..text.len().min(255)];
        data[at..at + text.len()].copy_from_slice(text);
    }
    data
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Completion {
    pub(super) result: u64,
    /// Its status without the bits that say nothing of it.
    pub(super) status: u16,
    pub(super) id: u16,
}

impl Completion {
    pub(super) fn read(own: &[u8]) -> Option<Self> {
        let own: &[u8; 16] = own.first_chunk()?;
        Some(Self {
            result: u64::from_le_bytes(*own.first_chunk()?),
            id: u16::from_le_bytes([own[12], own[13]]),
            status: (u16::from_le_bytes([own[14], own[15]]) >> 1) & 0x7ff,
        })
    }
}

/// The only kind of reservation that is a fence: nobody but its holder reads or writes.
pub(super) const EXCLUSIVE_ACCESS: u8 = 2;

/// What a namespace and its controller can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Able {
    pub(super) reservations: bool,
    /// A capsule has room for the data of a command.
    pub(super) in_capsule: bool,
}

impl Able {
    pub(super) fn read(controller: &[u8]) -> Option<Self> {
        let capsule = u32::from_le_bytes(*controller.get(1792..)?.first_chunk()?);
        Some(Self { reservations: controller[520] & 1 << 5 != 0, in_capsule: capsule >= 5 })
    }
}

/// Whether a namespace can be had for oneself, and whether that survives a loss of power.
pub(super) fn exclusive_and_lasting(namespace: &[u8]) -> Option<(bool, bool)> {
    let able = *namespace.get(31)?;
    Some((able & 1 << 2 != 0, able & 1 != 0))
}

/// A host that is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Registrant {
    pub(super) host: HostId,
    pub(super) key: u64,
    pub(super) holds: bool,
}

/// A namespace's reservation, as its target reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reservation {
    /// Its type; none: 0.
    pub(super) kind: u8,
    /// Whether it survives a loss of power.
    pub(super) lasting: bool,
    /// Each host once, however many controllers it has.
    pub(super) registrants: Vec<Registrant>,
}

/// The report's own header, and each registrant in it.
const ENTRY: usize = 64;
/// As many as are read.
pub(super) const REGISTRANTS: usize = 511;
/// What a report of so many takes.
pub(super) const REPORT: usize = ENTRY * (REGISTRANTS + 1);

impl Reservation {
    pub(super) fn read(data: &[u8]) -> Option<Self> {
        let header: &[u8; ENTRY] = data.first_chunk()?;
        let count = usize::from(u16::from_le_bytes([header[5], header[6]]));
        let mut registrants: Vec<Registrant> = Vec::new();
        // More than was asked for cannot be judged.
        for entry in data[ENTRY..].chunks_exact(ENTRY).take(count) {
            let one = Registrant {
                host: *entry[16..].first_chunk()?,
                key: u64::from_le_bytes(*entry[8..].first_chunk()?),
                holds: entry[2] & 1 != 0,
            };
            if !registrants.contains(&one) {
                registrants.push(one);
            }
        }
        (count <= REGISTRANTS && data.len() >= ENTRY * (count + 1)).then_some(Self {
            kind: header[4],
            lasting: header[9] == 1,
            registrants,
        })
    }

    pub(super) fn holder(&self) -> Option<&Registrant> {
        self.registrants.iter().find(|it| it.holds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_contradicts_itself_is_none() {
        let of = |own: u8, data: u8, all: u32| {
            let mut header = [0; HEADER];
            (header[2], header[3]) = (own, data);
            header[4..].copy_from_slice(&all.to_le_bytes());
            lengths(&header)
        };
        assert_eq!(of(24, 0, 24), Some((24, 24, 24)));
        assert_eq!(of(24, 24, 4120), Some((24, 24, 4120)));
        for (own, data, all) in [(4, 0, 24), (24, 8, 100), (24, 0, 8), (24, 24, u32::MAX)] {
            assert_eq!(of(own, data, all), None, "{own} {data} {all}");
        }
    }

    #[test]
    fn a_report_that_is_cut_is_none() {
        let mut report = vec![0; 2 * ENTRY];
        (report[4], report[5], report[9]) = (EXCLUSIVE_ACCESS, 1, 1);
        (report[ENTRY + 2], report[ENTRY + 8], report[ENTRY + 16]) = (1, 7, 9);
        let read = Reservation::read(&report).unwrap();
        assert!(read.lasting && read.holder().is_some_and(|it| it.key == 7 && it.host[0] == 9));
        assert_eq!(Reservation::read(&report[..2 * ENTRY - 1]), None);
        report[5] = 2;
        assert_eq!(Reservation::read(&report), None, "it speaks of two and shows one");
    }

    #[test]
    fn a_command_stands_where_the_specification_says() {
        let sent = Command::acquire(3, Acquire::PreemptAndAbort).capsule(5, Data::Out(&[1; 16]));
        assert_eq!((sent[0], sent[2], sent[3], sent[4], sent.len()), (0x04, 72, 72, 88, 88));
        let command = &sent[HEADER..HEADER + COMMAND];
        assert_eq!((command[0], command[1], command[2], command[4]), (0x11, 0x40, 5, 3));
        assert_eq!((command[32], command[39]), (16, 0x01));
        assert_eq!((command[40], command[41]), (0x02, EXCLUSIVE_ACCESS));
        let sent = Command::connect(1).capsule(0, Data::Out(&[0; 1024]));
        let command = &sent[HEADER..HEADER + COMMAND];
        assert_eq!((command[0], command[4], command[42], command[44]), (0x7f, 1, 1, 15));
    }
}
