use super::*;

const LOCAL: &str = "10.0.0.1:45000";
const REMOTE: &str = "10.0.0.2:4420";

fn id() -> SocketId {
    SocketId::new(LOCAL.parse().unwrap(), REMOTE.parse().unwrap(), 3, [0x11, 0x22])
}

/// One socket as the kernel writes it, with `attributes` after the fixed part.
fn told(family: u8, state: u8, id: &RawId, attributes: &[u8]) -> Vec<u8> {
    let mut body = vec![family, state, 0, 0];
    body.extend(id.0);
    for number in [0_u32, 0, 0, 1000, 77] {
        body.extend(number.to_ne_bytes());
    }
    body.extend(attributes);
    body
}

fn info(length: usize) -> Vec<u8> {
    let mut value = vec![1, 0, 4, 0, 3, 0, 0, 0];
    for number in 2_u32..26 {
        value.extend((number * 1000).to_ne_bytes());
    }
    value.resize(length, 0);
    let mut attribute = u16::try_from(length + 4).unwrap().to_ne_bytes().to_vec();
    attribute.extend(INET_DIAG_INFO.to_ne_bytes());
    attribute.extend(value);
    attribute
}

#[test]
#[cfg(target_endian = "little")]
fn a_dump_asks_for_one_address_and_port_and_nothing_else() {
    #[rustfmt::skip]
    let expected = [
        // nlmsghdr: 92 bytes, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, number 7.
        92, 0, 0, 0,  20, 0,  1, 3,  7, 0, 0, 0,  0, 0, 0, 0,
        // inet_diag_req_v2: AF_INET, TCP, INFO, states.
        2, 6, 2, 0,  0x36, 0x0b, 0, 0,
        // inet_diag_sockid: the remote port only.
        0, 0,  0x11, 0x44,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 0,
        // INET_DIAG_REQ_BYTECODE: one D_COND, else past the end.
        20, 0, 1, 0,
        8, 16, 20, 0,  2, 32, 0, 0,  0x44, 0x11, 0, 0,  10, 0, 0, 2,
    ];
    assert_eq!(dump(Family::V4, HELD, REMOTE.parse().unwrap()).numbered(7), expected);
}

#[test]
#[cfg(target_endian = "little")]
fn a_destruction_names_both_ends_the_interface_and_the_cookie() {
    #[rustfmt::skip]
    let expected = [
        72, 0, 0, 0,  21, 0,  5, 0,  9, 0, 0, 0,  0, 0, 0, 0,
        2, 6, 0, 0,  0xff, 0xff, 0xff, 0xff,
        0xaf, 0xc8,  0x11, 0x44,
        10, 0, 0, 1,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        10, 0, 0, 2,  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 0, 0,  0x11, 0, 0, 0,  0x22, 0, 0, 0,
    ];
    assert_eq!(destroy(&id()).numbered(9), expected);
    let exact = exact(&id()).numbered(9);
    assert_eq!(exact[4..8], [20, 0, 1, 0], "a look-up, not a dump");
    assert_eq!(exact[24..], expected[24..], "of the same socket");
}

#[test]
fn the_filter_of_an_ipv6_target_compares_all_of_its_address() {
    let program = destination("[2001:db8::1]:4420".parse().unwrap());
    assert_eq!(program.len(), 28);
    assert_eq!(program[..2], [INET_DIAG_BC_D_COND, 28]);
    assert_eq!(program[4..6], [AF_INET6, 128]);
    assert_eq!(program[12..], "2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
}

#[test]
fn an_id_goes_back_to_the_kernel_as_it_came() {
    let mut raw = id().raw;
    // What we do not understand is kept too.
    raw.0[9] = 0xee;
    let socket = socket(&told(AF_INET, 1, &raw, &[])).unwrap().unwrap();
    assert_eq!(socket.id.raw, raw);
    assert_eq!((socket.id.local, socket.id.remote), (id().local, id().remote));
    assert_eq!((socket.id.interface, socket.id.cookie), (3, [0x11, 0x22]));
    assert_eq!((socket.uid, socket.inode, socket.info), (1000, 77, None));
    assert_eq!(destroy(&socket.id).numbered(1)[24..72], raw.0);
}

#[test]
fn a_mapped_address_is_the_one_that_is_mapped() {
    let mapped = "[::ffff:10.0.0.2]:4420".parse().unwrap();
    let raw = RawId::of("[::ffff:10.0.0.1]:45000".parse().unwrap(), mapped, 0, [1, 2]);
    let socket = socket(&told(AF_INET6, 1, &raw, &[])).unwrap().unwrap();
    assert_eq!(socket.id.family, Family::V6);
    assert_eq!(socket.id.remote, REMOTE.parse().unwrap());
    assert_eq!(socket.id.raw, raw);
}

#[test]
fn a_link_local_address_carries_its_interface() {
    let remote = "[fe80::1]:4420".parse().unwrap();
    let raw = RawId::of("[fe80::2]:45000".parse().unwrap(), remote, 5, [1, 2]);
    let socket = socket(&told(AF_INET6, 1, &raw, &[])).unwrap().unwrap();
    assert_eq!(socket.id.remote.to_string(), "[fe80::1%5]:4420");
}

#[test]
fn tcp_info_is_read_at_its_places_whatever_its_length() {
    for length in [60, 104, 248, 280] {
        let socket = socket(&told(AF_INET, 8, &id().raw, &info(length))).unwrap().unwrap();
        let info = socket.info.unwrap();
        assert_eq!(socket.state, TcpState::CloseWait);
        assert_eq!((info.state, info.retransmits, info.backoff), (TcpState::Established, 4, 3));
        assert_eq!((info.rto, info.unacked), (Duration::from_millis(2), 6000));
        assert_eq!(info.since_ack, Duration::from_millis(14_000));
    }
    let short = told(AF_INET, 1, &id().raw, &info(56));
    assert_eq!(socket(&short), Err(Malformed));
}

#[test]
fn a_socket_that_is_only_remembered_is_none() {
    let mut body = told(AF_INET, 5, &id().raw, &[]);
    body[2] = TIMER_TIME_WAIT;
    assert_eq!(socket(&body), Ok(None));
}

#[test]
fn what_is_not_of_the_form_is_refused_and_nothing_upsets_the_reader() {
    let whole = told(AF_INET, 1, &id().raw, &info(104));
    for cut in 0..FIXED {
        assert_eq!(socket(&whole[..cut]), Err(Malformed), "cut at {cut}");
    }
    for cut in FIXED + 1..whole.len() {
        assert_eq!(socket(&whole[..cut]), Err(Malformed), "cut at {cut}");
    }
    assert_eq!(socket(&told(1, 1, &id().raw, &[])), Err(Malformed), "a family that is neither");
    for length in [0_u16, 1, 3, 0xffff] {
        let mut attribute = length.to_ne_bytes().to_vec();
        attribute.extend([2, 0, 0, 0, 0, 0]);
        assert_eq!(socket(&told(AF_INET, 1, &id().raw, &attribute)), Err(Malformed));
    }
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
        let _ = socket(&bytes);
    }
}
