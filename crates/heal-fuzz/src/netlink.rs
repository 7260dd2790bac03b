//! What the kernel says over netlink.

use heal_host::fuzzing::{self, Ended};
use heal_host::link::{self, LinkEvent};
use heal_host::network::follow;
use heal_host::uevent::Uevent;
use heal_types::{MadeOf, Network};

use crate::inputs::{cuts, survives_json};

/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// Length of `inet_diag_msg`.
const FIXED: usize = 72;

pub(crate) fn uevent(bytes: &[u8]) {
    let Some(_) = Uevent::parse(bytes) else { return };
    for cut in cuts(bytes.len()) {
        // What is cut at the end of a property looks whole; anything else must not.
        if cut == 0 || bytes[cut - 1] != 0 {
            assert_eq!(Uevent::parse(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}

pub(crate) fn links(bytes: &[u8]) {
    let events = link::parse(bytes);
    assert!(events.len() <= 1025, "{} events of one datagram", events.len());
    for cut in cuts(bytes.len()) {
        let some = link::parse(&bytes[..cut]);
        let owned_up = some.last() == Some(&LinkEvent::Overrun);
        let before = &some[..some.len() - usize::from(owned_up)];
        assert!(events.starts_with(before), "cut at {cut}: {some:?} of {events:?}");
        assert!(owned_up || !splits_a_message(bytes, cut), "cut at {cut}: {some:?}");
    }
    listed(bytes, &events);
}

/// Whether the first `cut` bytes end within a message, the padding behind it aside.
fn splits_a_message(bytes: &[u8], cut: usize) -> bool {
    let mut start = 0;
    while start < cut {
        let Some(length) = bytes.get(start..start + 4) else { return true };
        let length = u32::from_ne_bytes(length.try_into().expect("they are four"));
        let Ok(length) = usize::try_from(length) else { return true };
        if cut < start.saturating_add(length.max(16)) {
            return true;
        }
        start += length.next_multiple_of(4);
    }
    false
}

/// The same bytes as the answer to "list all interfaces", followed by the events.
fn listed(bytes: &[u8], events: &[LinkEvent]) {
    let Ok((_, objects)) = fuzzing::answer(bytes, 0, 0) else { return };
    let mut bodies = Vec::new();
    for (kind, body) in objects {
        let _ = fuzzing::way_out(&body);
        if kind == NEW_LINK {
            bodies.push(body);
        }
    }
    let Some(mut network) = fuzzing::interfaces(&bodies) else { return };
    assert!(network.interfaces.len() <= bodies.len());
    sound(&network);
    for event in events {
        follow(&mut network, event);
        sound(&network);
    }
}

fn sound(network: &Network) {
    survives_json(network);
    for (index, interface) in &network.interfaces {
        if let MadeOf::On(lower) = interface.made_of {
            assert!(lower != 0 && lower != *index, "an interface stands on itself, or on nothing");
        }
        // Ends, whatever stands on whom.
        let _ = network.state(*index);
    }
}

pub(crate) fn sockets(bytes: &[u8]) {
    let Ok(Some(socket)) = fuzzing::socket(BY_FAMILY, bytes) else { return };
    let id = socket.id;
    assert_eq!(fuzzing::destruction(&id)[24..72], bytes[4..52], "another socket would be ended");
    assert_eq!(id.remote.ip(), id.remote.ip().to_canonical(), "a mapped address stays mapped");
    assert_eq!(
        fuzzing::socket(0, bytes).ok(),
        Some(None),
        "a message of another kind is no socket"
    );
    let attributes = fuzzing::attributes_of(&bytes[FIXED..]).expect("it was read");
    let once = attributes.iter().filter(|(kind, _)| *kind == INFO).count() <= 1;
    for cut in cuts(bytes.len()) {
        if let Ok(Some(less)) = fuzzing::socket(BY_FAMILY, &bytes[..cut]) {
            assert_eq!(less.id, id, "cut at {cut}");
            let less = less.info;
            assert!(!once || less.is_none() || less == socket.info, "cut at {cut}: {less:?}");
        }
    }
}

pub(crate) fn dialog(bytes: &[u8]) {
    let Ok((ended, objects)) = fuzzing::answer(bytes, 1, 2) else { return };
    for (_, body) in &objects {
        if let Some(attributes) = fuzzing::attributes_of(body) {
            let told: usize = attributes.iter().map(|(_, value)| value.len() + 4).sum();
            assert!(told <= body.len() + 3, "attributes are longer than what they stand in");
        }
    }
    for cut in cuts(bytes.len()) {
        let Ok((then, fewer)) = fuzzing::answer(&bytes[..cut], 1, 2) else { continue };
        assert!(objects.starts_with(&fewer), "cut at {cut}");
        if fewer.len() < objects.len() {
            assert_eq!(then, Ended::NotYet, "cut at {cut}: half a list is called whole");
        }
        if ended == Ended::Torn && then != Ended::NotYet {
            assert_eq!(then, Ended::Torn, "cut at {cut}");
        }
    }
}
