use heal_types::{LinkState, TransportKind};

use super::*;

/// A link message's body: index, flags, then attributes as (kind, value).
fn body(index: u32, flags: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(0_u32.to_ne_bytes());
    for (kind, value) in attributes {
        body.extend(attribute(*kind, value));
    }
    body
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

const UP: u32 = 0x1_0001;
const LINK: u16 = 5;
const MASTER: u16 = 10;
/// With the flag of an attribute that holds attributes.
const INFO: u16 = 18 | 0x8000;
const NETNS: u16 = 37;

fn kind(name: &[u8]) -> Vec<u8> {
    attribute(1, name)
}

fn number(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

/// Two cards in a bond, a VLAN on it, a macvlan on a card, a veth, a card in a VRF.
fn host() -> Network {
    let links = [
        body(1, UP, &[(IFLA_IFNAME, b"lo\0")]),
        body(2, UP, &[(IFLA_IFNAME, b"eth0\0"), (LINK, &number(2)), (MASTER, &number(4))]),
        body(3, UP, &[(IFLA_IFNAME, b"eth1\0"), (MASTER, &number(4))]),
        body(4, UP, &[(IFLA_IFNAME, b"bond0\0"), (INFO, &kind(b"bond\0"))]),
        body(5, UP, &[(IFLA_IFNAME, b"bond0.7\0"), (LINK, &number(4)), (INFO, &kind(b"vlan\0"))]),
        body(6, UP, &[(LINK, &number(2)), (INFO, &kind(b"macvlan\0"))]),
        body(7, UP, &[(LINK, &number(9)), (NETNS, &number(0)), (INFO, &kind(b"veth\0"))]),
        body(8, UP, &[(LINK, &number(9)), (NETNS, &number(0)), (INFO, &kind(b"macvlan\0"))]),
        body(10, UP, &[(INFO, &kind(b"vrf\0"))]),
        body(11, UP, &[(MASTER, &number(10))]),
    ];
    network(links.iter().map(|body| link(body).unwrap().unwrap()).collect())
}

#[test]
fn every_kind_of_interface_stands_on_what_it_stands_on() {
    let network = host();
    let made_of = |index: u32| network.interfaces[&index].made_of.clone();
    assert_eq!(made_of(2), MadeOf::Itself);
    assert_eq!(made_of(4), MadeOf::AnyOf(vec![2, 3]));
    assert_eq!(made_of(5), MadeOf::On(4));
    assert_eq!(made_of(6), MadeOf::On(2));
    assert_eq!(made_of(7), MadeOf::Itself, "a veth's other end is a cable, not a floor");
    assert_eq!(made_of(8), MadeOf::Itself, "its lower end is in another namespace");
    assert_eq!(made_of(10), MadeOf::Itself, "a VRF is a table, not a bundle");
    assert_eq!(network.interfaces[&5].name.as_ref().unwrap().as_str(), "bond0.7");
}

fn event(index: u32, carrier: bool, stands_on: Option<u32>, port_of: Option<u32>) -> LinkEvent {
    LinkEvent::Link {
        ifindex: index,
        name: None,
        carrier,
        admin_up: true,
        removed: false,
        stands_on,
        port_of,
    }
}

#[test]
fn a_lost_carrier_is_followed_without_reading_again() {
    let mut network = host();
    assert_eq!(follow(&mut network, &event(2, true, None, Some(4))), Followed::Same);
    assert_eq!(follow(&mut network, &event(2, false, None, Some(4))), Followed::Changed);
    assert_eq!(network.state(5), LinkState::PortDown);
    assert_eq!(network.state(6), LinkState::Down);
    assert_eq!(network.interfaces[&2].name.as_ref().unwrap().as_str(), "eth0");
    assert_eq!(follow(&mut network, &event(4, false, None, None)), Followed::Changed);
    assert_eq!(network.state(5), LinkState::Down);
    assert_eq!(follow(&mut network, &event(11, false, None, Some(10))), Followed::Changed);
    assert_eq!(follow(&mut network, &LinkEvent::Route), Followed::Same);
    assert_eq!(follow(&mut network, &LinkEvent::Overrun), Followed::ReadAgain);
}

#[test]
fn a_changed_stack_is_read_again_and_its_carrier_is_believed_at_once() {
    for (why, changed) in [
        ("a new interface", event(99, true, None, None)),
        ("a port that left", event(2, false, None, None)),
        ("a port of another", event(2, false, None, Some(10))),
        ("a port of one that is not known", event(2, false, None, Some(77))),
        ("a card that joined", event(1, false, None, Some(4))),
        ("a VLAN that moved", event(5, false, Some(2), None)),
    ] {
        let mut network = host();
        assert_eq!(follow(&mut network, &changed), Followed::ReadAgain, "{why}");
        let LinkEvent::Link { ifindex, .. } = changed else { panic!("{changed:?}") };
        assert_eq!(network.state(ifindex), LinkState::Down, "{why}");
    }
}

#[test]
fn an_interface_that_is_gone_is_gone_from_its_bond_too() {
    let mut network = host();
    let gone = |index| match event(index, false, None, None) {
        LinkEvent::Link { ifindex, name, carrier, admin_up, stands_on, port_of, .. } => {
            LinkEvent::Link { ifindex, name, carrier, admin_up, removed: true, stands_on, port_of }
        }
        other @ (LinkEvent::Address { .. } | LinkEvent::Route | LinkEvent::Overrun) => other,
    };
    assert_eq!(follow(&mut network, &gone(3)), Followed::Changed);
    assert_eq!(network.interfaces[&4].made_of, MadeOf::AnyOf(vec![2]));
    assert_eq!(network.state(3), LinkState::Down);
    assert_eq!(follow(&mut network, &gone(3)), Followed::Same);
}

#[test]
#[cfg(target_endian = "little")]
fn a_route_is_asked_for_one_target_and_from_one_address() {
    let both = route_request("10.0.0.2".parse().unwrap(), "10.0.0.1".parse().ok()).numbered(3);
    #[rustfmt::skip]
    let expected = [
        44, 0, 0, 0,  26, 0, 1, 0,  3, 0, 0, 0,  0, 0, 0, 0,
        2, 32, 32, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        8, 0, 1, 0,  10, 0, 0, 2,
        8, 0, 2, 0,  10, 0, 0, 1,
    ];
    assert_eq!(both, expected);
    let mixed = route_request("10.0.0.2".parse().unwrap(), "fe80::1".parse().ok()).numbered(3);
    assert_eq!(mixed.len(), 36, "an address of the other family is no source");
}

#[test]
fn a_route_that_leads_nowhere_is_no_way_out() {
    let route = |kind: u8| {
        let mut body = vec![2, 32, 0, 0, 0, 0, 0, kind, 0, 0, 0, 0];
        body.extend(attribute(RTA_OIF, &number(5)));
        way_out(&body)
    };
    assert_eq!(route(RTN_UNICAST), Ok(Some(5)));
    assert_eq!(route(RTN_LOCAL), Ok(Some(5)));
    assert_eq!(route(6), Ok(None), "a black hole");
    assert_eq!(way_out(&[0; 11]), Err(Malformed));
    let mut odd = vec![2, 32, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    odd.extend([9, 0, 4, 0, 1]);
    assert_eq!(way_out(&odd), Err(Malformed));
}

#[test]
fn no_bytes_upset_the_readers() {
    let whole = body(5, UP, &[(IFLA_IFNAME, b"eth0\0"), (INFO, &kind(b"vlan\0")), (LINK, &[1])]);
    let mut noise = 0x5eed_u64;
    let mut next = || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        usize::try_from(noise % 65_521).unwrap()
    };
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..next() % 6 {
            let at = next() % bytes.len();
            bytes[at] = u8::try_from(next() % 256).unwrap();
        }
        bytes.truncate(next() % (whole.len() + 1));
        let _ = (link(&bytes), way_out(&bytes));
    }
}

#[test]
fn an_address_of_the_kernels_is_read_with_its_scope() {
    let read = |text: &str| Numeric::of(&TransportAddress::new(text).unwrap());
    assert_eq!(read("10.0.0.2").unwrap().ip, "10.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(read("::ffff:10.0.0.2").unwrap().ip, "10.0.0.2".parse::<IpAddr>().unwrap());
    let eth0 = Scope::Name(InterfaceName::new("eth0").unwrap());
    assert_eq!(read("fe80::1%eth0").unwrap().scope, Some(eth0));
    assert_eq!(read("fe80::1%3").unwrap().scope, Some(Scope::Index(3)));
    assert_eq!(read("storage.example"), None);
    assert_eq!(read("fe80::1%"), None);
}

fn portal(address: &str) -> Portal {
    Portal {
        transport: TransportKind::Tcp,
        address: TransportAddress::new(address).unwrap(),
        port: 4420,
        host_address: None,
        host_interface: None,
    }
}

#[test]
fn this_machine_reaches_itself_through_its_loopback_interface() {
    let mut reader = NetworkReader::open().unwrap();
    let network = reader.read().unwrap();
    let lo = reader.index(&InterfaceName::new("lo").unwrap()).unwrap().unwrap();
    assert_eq!(network.interfaces[&lo].name.as_ref().unwrap().as_str(), "lo");
    assert_eq!(network.interfaces[&lo].made_of, MadeOf::Itself);
    let expected = network.interfaces[&lo].up.then_some(lo);
    assert_eq!(reader.egress(&portal("127.0.0.1"), None).unwrap(), expected);
    let local = "127.0.0.1".parse().ok();
    assert_eq!(reader.egress(&portal("127.0.0.1"), local).unwrap(), expected);
    let strange = "192.0.2.77".parse().ok();
    let from_strange = reader.egress(&portal("127.0.0.1"), strange).unwrap();
    assert_eq!(from_strange, None, "that source address is not ours");
    let mut bound = portal("127.0.0.1");
    bound.host_interface = Some(InterfaceName::new("lo").unwrap());
    assert_eq!(reader.egress(&bound, None).unwrap(), Some(lo));
    bound.host_interface = Some(InterfaceName::new("nosuch0").unwrap());
    assert_eq!(reader.egress(&bound, None).unwrap(), None);
    assert_eq!(reader.egress(&portal("fe80::1%lo"), None).unwrap(), Some(lo));
    let error = reader.egress(&portal("storage.example"), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}
