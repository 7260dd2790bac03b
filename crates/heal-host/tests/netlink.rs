//! What the kernel sends over netlink, read from bytes; and the sockets on the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test may fail and say why"
)]

use heal_host::link::{LinkEvent, parse};
use heal_host::uevent::{Action, NvmeEvent, Subject, Uevent};

fn uevent(fields: &[&[u8]]) -> Option<Uevent> {
    let mut message = fields.join(&0);
    message.push(0);
    Uevent::parse(&message)
}

/// Bytes that look random and are the same at every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.next() % 256).unwrap()
    }

    /// Changes, cuts or lengthens `bytes` somewhere.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len().max(1));
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.push(self.byte()),
                _ => {
                    let byte = self.byte();
                    if let Some(place) = bytes.get_mut(at) {
                        *place = byte;
                    }
                }
            }
        }
    }
}

#[test]
fn a_returned_controller_says_that_it_is_connected() {
    let event = uevent(&[
        b"change@/devices/virtual/nvme-fabrics/ctl/nvme2",
        b"ACTION=change",
        b"DEVPATH=/devices/virtual/nvme-fabrics/ctl/nvme2",
        b"SUBSYSTEM=nvme",
        b"NVME_EVENT=connected",
        b"NVME_TRTYPE=tcp",
        b"NVME_TRADDR=10.10.1.2",
        b"MAJOR=243",
        b"MINOR=2",
        b"DEVNAME=nvme2",
        b"SEQNUM=4711",
        b"",
    ])
    .unwrap();
    assert_eq!((event.action, event.sequence), (Action::Change, Some(4711)));
    let Subject::NvmeController { name, event } = event.subject else {
        panic!("{:?}", event.subject);
    };
    assert_eq!((name.as_str(), event), ("nvme2", Some(NvmeEvent::Connected)));
}

#[test]
fn an_asynchronous_event_carries_its_number() {
    let path = b"change@/devices/virtual/nvme-fabrics/ctl/nvme2";
    let event = |text: &[u8]| {
        let subject = uevent(&[path, b"SUBSYSTEM=nvme", text]).unwrap().subject;
        let Subject::NvmeController { event, .. } = subject else { panic!("{subject:?}") };
        event
    };
    assert_eq!(event(b"NVME_AEN=0x70f002"), Some(NvmeEvent::Aen(0x70_f002)));
    assert_eq!(event(b"NVME_EVENT=rediscover"), Some(NvmeEvent::Rediscover));
    for odd in [&b"NVME_AEN=70f002"[..], b"NVME_AEN=0x", b"NVME_AEN=0xfffffffff", b"NVME_EVENT=x"] {
        assert_eq!(event(odd), None);
    }
}

#[test]
fn a_block_device_comes_with_number_and_sequence() {
    let event = uevent(&[
        b"add@/devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n2",
        b"SUBSYSTEM=block",
        b"MAJOR=259",
        b"MINOR=8",
        b"DEVNAME=nvme1n2",
        b"DEVTYPE=disk",
        b"DISKSEQ=42",
    ])
    .unwrap();
    let Subject::Block { device, dev, diskseq } = event.subject else {
        panic!("{:?}", event.subject);
    };
    assert_eq!(event.action, Action::Add);
    assert_eq!(device.as_str(), "nvme1n2");
    assert_eq!(dev.unwrap().to_string(), "259:8");
    assert_eq!(diskseq.unwrap().0, 42);
}

#[test]
fn what_does_not_concern_us_is_other() {
    for fields in [
        &[&b"add@/devices/virtual/bdi/9:127"[..], b"SUBSYSTEM=bdi"][..],
        &[b"add@/devices/virtual/block/md127/md"],
        &[b"add@/x", b"SUBSYSTEM=block"],
        &[b"add@/devices/virtual/block/-rf", b"SUBSYSTEM=block"],
        &[b"add@/devices/virtual/block/\xff\xfe", b"SUBSYSTEM=block"],
        &[b"bind@/devices/x", b"SUBSYSTEM=\xff", b"\xff\xfe=\xff"],
    ] {
        let event = uevent(fields).unwrap();
        let concerns_nobody = match &event.subject {
            Subject::Other => true,
            Subject::Block { device, .. } => device.as_str() == "x",
            Subject::NvmeController { .. } | Subject::NvmeSubsystem | Subject::Net => false,
        };
        assert!(concerns_nobody, "{event:?}");
    }
}

#[test]
fn what_is_not_of_the_form_is_nothing() {
    for message in [
        &b""[..],
        b"\0",
        b"@\0",
        b"@/x\0",
        b"add\0",
        b"add@\0",
        b"add@relative\0",
        b"libudev\0\xfe\xed\xca\xfe\0",
        b"\0\0\0\0",
        b"ACTION=add\0",
    ] {
        assert_eq!(Uevent::parse(message), None, "{message:?}");
    }
}

#[test]
fn a_name_that_lacks_its_end_is_nobodys() {
    let whole = b"add@/devices/virtual/block/md12\0SUBSYSTEM=block\0DEVNAME=md127\0";
    assert!(Uevent::parse(whole).is_some());
    for cut in 1..whole.len() {
        let ends_with_a_part = whole[cut - 1] == 0;
        assert_eq!(Uevent::parse(&whole[..cut]).is_some(), ends_with_a_part, "cut at {cut}");
    }
}

#[test]
fn a_flood_of_properties_is_cut_off() {
    let mut message = b"add@/devices/virtual/block/md0".to_vec();
    for _ in 0..100_000 {
        message.extend(b"\0A=b");
    }
    message.extend(b"\0SUBSYSTEM=block\0");
    assert_eq!(Uevent::parse(&message).unwrap().subject, Subject::Other);
}

#[test]
fn no_bytes_upset_the_uevent_parser() {
    let good = b"change@/devices/virtual/nvme-fabrics/ctl/nvme2\0ACTION=change\0SUBSYSTEM=nvme\0\
                 MAJOR=1\0MINOR=2\0DEVNAME=nvme2\0NVME_AEN=0x70f002\0DISKSEQ=7\0SEQNUM=9\0";
    let mut noise = Noise(0x5eed);
    for _ in 0..20_000 {
        let mut message = good.to_vec();
        noise.spoil(&mut message);
        let _ = Uevent::parse(&message);
        let random: Vec<u8> = (0..noise.below(200)).map(|_| noise.byte()).collect();
        let _ = Uevent::parse(&random);
    }
}

fn netlink(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len();
    let mut message = u32::try_from(length).unwrap().to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.resize(16, 0);
    message.extend(body);
    message.resize(length.next_multiple_of(4), 0);
    message
}

fn link(kind: u16, flags: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(7_u32.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(u32::MAX.to_ne_bytes());
    // An attribute of one byte with its padding, then the name.
    body.extend([5, 0, 16, 0, 6, 0, 0, 0]);
    body.extend([12, 0, 3, 0]);
    body.extend(b"eth0.10\0");
    netlink(kind, &body)
}

#[test]
fn a_pulled_cable_reads_as_carrier_lost_and_wanted_up() {
    let pulled = parse(&link(16, 1));
    let expected = LinkEvent::Link {
        ifindex: 7,
        name: Some("eth0.10".into()),
        carrier: false,
        admin_up: true,
        removed: false,
        stands_on: None,
        port_of: None,
    };
    assert_eq!(pulled, [expected]);
}

#[test]
fn several_messages_of_one_datagram_are_all_read() {
    let mut datagram = link(17, 0x1_0001);
    datagram.extend(netlink(20, &[2, 24, 0, 0, 3, 0, 0, 0]));
    datagram.extend(netlink(99, &[]));
    datagram.extend(netlink(25, &[0; 12]));
    let events = parse(&datagram);
    assert_eq!(events.len(), 3);
    assert!(matches!(events[0], LinkEvent::Link { removed: true, carrier: true, .. }));
    assert_eq!(events[1], LinkEvent::Address { ifindex: 3, removed: false });
    assert_eq!(events[2], LinkEvent::Route);
}

#[test]
fn a_message_that_does_not_fit_counts_as_lost() {
    let whole = link(16, 1);
    for cut in 1..whole.len() {
        assert!(parse(&whole[..cut]).contains(&LinkEvent::Overrun), "cut at {cut}");
    }
    for length in [0_u32, 1, 15, 17, u32::MAX] {
        let mut message = whole.clone();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        assert!(parse(&message).contains(&LinkEvent::Overrun), "length {length}");
    }
    assert_eq!(parse(&netlink(16, &[0; 15])), [LinkEvent::Overrun]);
    assert_eq!(parse(&netlink(20, &[0; 7])), [LinkEvent::Overrun]);
    assert_eq!(parse(&[]), []);
}

#[test]
fn a_name_that_is_no_text_is_no_name() {
    let mut body = vec![0; 16];
    body.extend([8, 0, 3, 0, 0xff, 0xfe, 0xfd, 0]);
    let events = parse(&netlink(16, &body));
    assert!(matches!(&events[..], [LinkEvent::Link { name: None, .. }]));
}

#[test]
fn an_interface_says_what_it_stands_on_and_what_it_is_a_port_of() {
    let mut body = vec![0; 16];
    body.extend([8, 0, 5, 0, 4, 0, 0, 0]); // IFLA_LINK
    body.extend([8, 0, 10, 0, 9, 0, 0, 0]); // IFLA_MASTER
    body.extend([16, 0, 18, 0x80, 9, 0, 1, 0]); // IFLA_LINKINFO with IFLA_INFO_KIND
    body.extend(b"vlan\0\0\0\0");
    let events = parse(&netlink(16, &body));
    let [LinkEvent::Link { stands_on, port_of, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*stands_on, *port_of), (Some(4), Some(9)));
}

#[test]
fn a_port_that_leaves_its_bridge_is_not_gone() {
    let mut of_the_bridge = link(17, 0x1_0001);
    of_the_bridge[16] = 7; // AF_BRIDGE
    assert_eq!(parse(&of_the_bridge), []);
    of_the_bridge[16] = 0;
    assert!(matches!(&parse(&of_the_bridge)[..], [LinkEvent::Link { removed: true, .. }]));
}

#[test]
fn no_bytes_upset_the_link_parser() {
    let mut noise = Noise(0x5eed);
    let mut good = link(16, 1);
    good.extend(netlink(21, &[2, 24, 0, 0, 3, 0, 0, 0]));
    for _ in 0..20_000 {
        let mut datagram = good.clone();
        noise.spoil(&mut datagram);
        let _ = parse(&datagram);
        let random: Vec<u8> = (0..noise.below(200)).map(|_| noise.byte()).collect();
        let _ = parse(&random);
    }
    let flood: Vec<u8> = netlink(24, &[]).repeat(5000);
    let events = parse(&flood);
    assert!(events.len() <= 1025 && events.contains(&LinkEvent::Overrun));
}
