use std::net::SocketAddr;
use std::time::Duration;

use heal_types::{InterfaceName, TransportAddress};

use super::*;
use crate::sockdiag::TcpInfo;

const PORTAL: &str = "10.0.0.2";

fn name(name: &str) -> ControllerName {
    ControllerName::new(name).unwrap()
}

fn names(list: &[&str]) -> Names {
    list.iter().map(|one| name(one)).collect()
}

/// A live controller of three queues at the one portal; its instance is its number.
fn controller(text: &str) -> LiveController {
    LiveController {
        name: name(text),
        instance: text.trim_start_matches("nvme").parse().unwrap(),
        portal: Portal {
            transport: TransportKind::Tcp,
            address: TransportAddress::new(PORTAL).unwrap(),
            port: 4420,
            host_address: None,
            host_interface: None,
        },
        interface: None,
        queues: 3,
        live: true,
    }
}

fn dead(mut controller: LiveController) -> LiveController {
    controller.live = false;
    controller
}

fn socket_from(local: &str, cookie: u32) -> TcpSocket {
    let port = 40_000 + u16::try_from(cookie % 20_000).unwrap();
    let local = SocketAddr::new(local.parse().unwrap(), port);
    let remote = SocketAddr::new(PORTAL.parse().unwrap(), 4420);
    TcpSocket {
        id: SocketId::new(local, remote, 0, [cookie, 0]),
        state: TcpState::Established,
        info: None,
        inode: cookie,
        uid: 0,
    }
}

/// Sockets of these cookies to the one portal.
fn sockets(cookies: impl IntoIterator<Item = u32>) -> Vec<TcpSocket> {
    cookies.into_iter().map(|cookie| socket_from("10.0.0.1", cookie)).collect()
}

/// Looks twice, as a claim takes.
fn look(book: &mut SocketBook, controllers: &[LiveController], sockets: &[TcpSocket]) {
    book.reconcile(controllers, sockets);
    book.reconcile(controllers, sockets);
    assert!(!book.wants_another_look());
}

fn cookies(book: &SocketBook, of: &[&str]) -> Vec<u32> {
    let found = book.sockets_of(&names(of)).unwrap_or_else(|why| panic!("{why}"));
    found.iter().map(|id| id.cookie[0]).collect()
}

fn why(book: &SocketBook, of: &[&str]) -> AmbiguousWhy {
    book.sockets_of(&names(of)).expect_err("nobody knows")
}

#[test]
fn one_controller_at_one_portal_has_all_its_sockets() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
    assert_eq!(book.claims().count(), 1);
}

#[test]
fn two_subsystems_behind_one_portal_are_one_claim_and_neither_alone() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1"), controller("nvme2")], &sockets(1..=6));
    assert_eq!(cookies(&book, &["nvme1", "nvme2"]), [1, 2, 3, 4, 5, 6]);
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::SharedWith(names(&["nvme2"])));
    assert_eq!(why(&book, &["nvme2", "nvme9"]), AmbiguousWhy::SharedWith(names(&["nvme1"])));
    assert_eq!(why(&book, &["nvme9"]), AmbiguousWhy::Unknown(name("nvme9")));
}

#[test]
fn a_controller_that_comes_while_the_book_is_open_has_its_own_claim() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    look(&mut book, &[controller("nvme1"), controller("nvme2")], &sockets(1..=6));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
    assert_eq!(cookies(&book, &["nvme2"]), [4, 5, 6]);
    assert_eq!(cookies(&book, &["nvme1", "nvme2"]).len(), 6);
}

#[test]
fn one_socket_too_many_is_nobodys_and_everybodys_doubt() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=4));
    let expected =
        AmbiguousWhy::CountsDisagree { controllers: names(&["nvme1"]), queues: 3, sockets: 4 };
    assert_eq!(why(&book, &["nvme1"]), expected);
    assert_eq!(expected.to_string(), "nvme1 have 3 queues, and 4 sockets could be theirs");
    look(&mut book, &[controller("nvme1")], &sockets([1, 2, 4]));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 4], "the tool's socket is gone");
    look(&mut book, &[controller("nvme1")], &sockets([1, 2, 4, 9]));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 4], "a tool that comes later changes nothing");
}

#[test]
fn one_socket_too_few_is_a_doubt_too() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    look(&mut book, &[controller("nvme1")], &sockets(1..=2));
    assert!(matches!(why(&book, &["nvme1"]), AmbiguousWhy::CountsDisagree { sockets: 2, .. }));
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
}

#[test]
fn numbers_have_to_agree_twice_in_a_row() {
    let mut book = SocketBook::new();
    let group = [controller("nvme1"), dead(controller("nvme2"))];
    book.reconcile(&group, &sockets(1..=3));
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::Unconfirmed(names(&["nvme1"])));
    assert!(book.wants_another_look());
    book.reconcile(&group, &sockets(2..=4));
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::Unconfirmed(names(&["nvme1"])));
    book.reconcile(&group, &sockets(2..=4));
    assert_eq!(cookies(&book, &["nvme1"]), [2, 3, 4]);
    assert!(!book.wants_another_look());
}

#[test]
fn a_target_that_comes_back_within_a_look_swaps_nobody() {
    let mut book = SocketBook::new();
    // The dead one's sockets are there already, the live one's are gone.
    book.reconcile(&[controller("nvme1"), dead(controller("nvme2"))], &sockets(4..=6));
    book.reconcile(&[dead(controller("nvme1")), controller("nvme2")], &sockets(4..=6));
    book.sockets_of(&names(&["nvme1"])).unwrap_err();
    let both = [controller("nvme1"), controller("nvme2")];
    look(&mut book, &both, &sockets(4..=9));
    assert_eq!(cookies(&book, &["nvme1", "nvme2"]), [4, 5, 6, 7, 8, 9]);
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::SharedWith(names(&["nvme2"])));
}

#[test]
fn a_users_socket_and_one_that_is_being_closed_do_not_count() {
    let mut list = sockets(1..=7);
    list[3].uid = 1000;
    list[4].state = TcpState::FinWait1;
    list[5].state = TcpState::SynSent;
    list[6].state = TcpState::Other(13);
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &list);
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
}

#[test]
fn a_newcomers_sockets_are_its_own_even_where_the_others_numbers_disagree() {
    let mut book = SocketBook::new();
    let two = [controller("nvme1"), controller("nvme2")];
    look(&mut book, &two, &sockets(1..=7));
    look(&mut book, &two, &sockets(1..=7));
    let three = [controller("nvme1"), controller("nvme2"), controller("nvme3")];
    look(&mut book, &three, &sockets(1..=10));
    assert_eq!(cookies(&book, &["nvme3"]), [8, 9, 10]);
    assert!(matches!(why(&book, &["nvme1"]), AmbiguousWhy::CountsDisagree { sockets: 7, .. }));
}

#[test]
fn a_newcomer_beside_a_tool_that_came_too_is_not_guessed() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1"), controller("nvme2")], &sockets(1..=7));
    let three = [controller("nvme1"), controller("nvme2"), controller("nvme3")];
    look(&mut book, &three, &sockets(1..=11));
    assert!(matches!(why(&book, &["nvme3"]), AmbiguousWhy::CountsDisagree { .. }));
    // One of the old ones went, one came: the new ones are three, but whose?
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1"), controller("nvme2")], &sockets(1..=7));
    look(&mut book, &three, &sockets(2..=10));
    book.sockets_of(&names(&["nvme3"])).unwrap_err();
}

#[test]
fn a_reconnect_gives_new_cookies_and_the_old_ones_are_forgotten() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    look(&mut book, &[dead(controller("nvme1"))], &[]);
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::NotLive(name("nvme1")));
    look(&mut book, &[controller("nvme1")], &sockets(11..=13));
    assert_eq!(cookies(&book, &["nvme1"]), [11, 12, 13]);
    // So fast that nobody saw it go.
    look(&mut book, &[controller("nvme1")], &sockets(21..=23));
    assert_eq!(cookies(&book, &["nvme1"]), [21, 22, 23]);
}

#[test]
fn a_joint_claim_grows_finer_when_one_of_two_connects_anew() {
    let mut book = SocketBook::new();
    let both = [controller("nvme1"), controller("nvme2")];
    look(&mut book, &both, &sockets(1..=6));
    let one_lost = [controller("nvme1"), dead(controller("nvme2"))];
    // Its sockets are still being closed: nobody knows which of the six they are.
    look(&mut book, &one_lost, &sockets(1..=5));
    book.sockets_of(&names(&["nvme1"])).unwrap_err();
    look(&mut book, &one_lost, &sockets([1, 3, 5]));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 3, 5]);
    look(&mut book, &both, &sockets([1, 3, 5, 7, 8, 9]));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 3, 5]);
    assert_eq!(cookies(&book, &["nvme2"]), [7, 8, 9]);
}

#[test]
fn a_controller_that_left_takes_its_sockets_with_it() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1"), controller("nvme2")], &sockets(1..=6));
    look(&mut book, &[controller("nvme1")], &sockets(1..=6));
    book.sockets_of(&names(&["nvme1"])).unwrap_err();
    look(&mut book, &[controller("nvme1")], &sockets(4..=6));
    assert_eq!(cookies(&book, &["nvme1"]), [4, 5, 6]);
    assert_eq!(why(&book, &["nvme2"]), AmbiguousWhy::Unknown(name("nvme2")));
}

#[test]
fn a_successor_of_the_same_name_inherits_nothing() {
    let mut book = SocketBook::new();
    look(&mut book, &[controller("nvme1")], &sockets(1..=3));
    let mut successor = controller("nvme1");
    successor.instance = 99;
    look(&mut book, &[successor.clone()], &sockets([1, 2, 3, 4]));
    book.sockets_of(&names(&["nvme1"])).unwrap_err();
    look(&mut book, &[successor], &sockets([5, 6, 7]));
    assert_eq!(cookies(&book, &["nvme1"]), [5, 6, 7]);
}

#[test]
fn host_addresses_and_interfaces_tell_controllers_apart() {
    let from = |text: &str, host: &str| {
        let mut controller = controller(text);
        controller.portal.host_address = Some(TransportAddress::new(host).unwrap());
        controller
    };
    let mut list = sockets(1..=3);
    list.extend((4..=6).map(|cookie| socket_from("10.0.1.1", cookie)));
    let mut book = SocketBook::new();
    look(&mut book, &[from("nvme1", "10.0.0.1"), from("nvme2", "10.0.1.1")], &list);
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
    assert_eq!(cookies(&book, &["nvme2"]), [4, 5, 6]);
    // One that names no address could own any of them: all of them are one group.
    let mut book = SocketBook::new();
    look(&mut book, &[from("nvme1", "10.0.0.1"), controller("nvme2")], &list);
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::SharedWith(names(&["nvme2"])));
    // Interfaces likewise, once their index is known.
    let bound = |text: &str, index| {
        let mut controller = controller(text);
        controller.portal.host_interface = Some(InterfaceName::new("eth0").unwrap());
        controller.interface = index;
        controller
    };
    let list: Vec<_> = (1..=6_u32)
        .map(|cookie| {
            let remote = SocketAddr::new(PORTAL.parse().unwrap(), 4420);
            let local = SocketAddr::new("10.0.0.1".parse().unwrap(), 40_000);
            let mut socket = socket_from("10.0.0.1", cookie);
            socket.id = SocketId::new(local, remote, 1 + cookie / 4, [cookie, 0]);
            socket
        })
        .collect();
    let mut book = SocketBook::new();
    look(&mut book, &[bound("nvme1", Some(1)), bound("nvme2", Some(2))], &list);
    assert_eq!(cookies(&book, &["nvme2"]), [4, 5, 6]);
    look(&mut book, &[bound("nvme1", Some(1)), bound("nvme2", None)], &list);
    assert_eq!(why(&book, &["nvme2"]), AmbiguousWhy::InterfaceUnknown(name("nvme2")));
    assert_eq!(cookies(&book, &["nvme1"]), [1, 2, 3]);
}

#[test]
fn what_has_no_sockets_or_no_address_says_so() {
    let mut rdma = controller("nvme1");
    rdma.portal.transport = TransportKind::Rdma;
    let mut named = controller("nvme2");
    named.portal.address = TransportAddress::new("storage.example").unwrap();
    let mut book = SocketBook::new();
    look(&mut book, &[rdma, named], &[]);
    assert_eq!(why(&book, &["nvme1"]), AmbiguousWhy::NotTcp(name("nvme1")));
    assert_eq!(why(&book, &["nvme2"]), AmbiguousWhy::AddressUnreadable(name("nvme2")));
}

#[test]
fn the_reading_is_that_of_the_worst_socket_and_not_a_mixture() {
    let mut list = sockets(1..=3);
    let info = |backoff, unacked, since_ack| TcpInfo {
        state: TcpState::Established,
        retransmits: backoff,
        backoff,
        rto: Duration::from_millis(200),
        unacked,
        since_ack: Duration::from_millis(since_ack),
    };
    list[0].info = Some(info(0, 0, 60_000));
    list[1].info = Some(info(3, 2, 1_500));
    list[2].info = Some(info(1, 9, 300));
    let mut book = SocketBook::new();
    assert_eq!(book.reading(&name("nvme1"), &list), None);
    look(&mut book, &[controller("nvme1")], &list);
    let reading = book.reading(&name("nvme1"), &list).unwrap();
    assert_eq!((reading.backoff, reading.unacked, reading.closed), (3, 2, false));
    assert_eq!(reading.since_ack, Duration::from_millis(1_500));
    assert!(book.reading(&name("nvme1"), &list[1..]).unwrap().closed, "one of them is gone");
    assert!(book.reading(&name("nvme1"), &[]).unwrap().closed);
    list[0].state = TcpState::CloseWait;
    assert!(book.reading(&name("nvme1"), &list).unwrap().closed);
}

/// A host whose truth is known: controllers that come, go, lose and find their connection, and
/// tools that come and go.
struct Truth {
    seed: u64,
    step: u64,
    cookie: u32,
    /// Each controller with its sockets; none while it is not live.
    controllers: BTreeMap<ControllerName, (LiveController, Vec<u32>)>,
    tools: Vec<u32>,
}

impl Truth {
    fn new(seed: u64) -> Self {
        let controllers = BTreeMap::new();
        Self { seed, step: 0, cookie: 0, controllers, tools: Vec::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % bound
    }

    fn socket(&mut self) -> u32 {
        self.cookie += 1;
        self.cookie
    }

    fn something_happens(&mut self) {
        self.step += 1;
        let which = format!("nvme{}", self.below(4));
        match self.below(6) {
            0 => {
                self.controllers.remove(&name(&which));
            }
            1 => match self.tools.pop() {
                Some(_) => {}
                None => {
                    let tool = self.socket();
                    self.tools.push(tool);
                }
            },
            2 => {
                if let Some((controller, sockets)) = self.controllers.get_mut(&name(&which)) {
                    controller.live = false;
                    sockets.clear();
                }
            }
            _ => self.connects(&which),
        }
    }

    fn connects(&mut self, which: &str) {
        let mut new = controller(which);
        new.instance = 100 + self.step;
        new.queues = 2 + u16::try_from(self.below(2)).unwrap();
        let mut one = self.controllers.remove(&name(which)).map_or(new, |(one, _)| one);
        one.live = true;
        let sockets = (0..one.queues).map(|_| self.socket()).collect();
        self.controllers.insert(one.name.clone(), (one, sockets));
    }

    fn controllers(&self) -> Vec<LiveController> {
        self.controllers.values().map(|(controller, _)| controller.clone()).collect()
    }

    fn sockets(&self) -> Vec<TcpSocket> {
        let theirs = self.controllers.values().flat_map(|(_, sockets)| sockets.clone());
        sockets(theirs.chain(self.tools.clone()))
    }

    fn of(&self, names: &Names) -> BTreeSet<u32> {
        let sockets = |name| self.controllers.get(name).map_or(Vec::new(), |(_, s)| s.clone());
        names.iter().flat_map(sockets).collect()
    }
}

fn every_set() -> impl Iterator<Item = Names> {
    (1..16_u32).map(|set| {
        let members = (0..4).filter(move |bit| set >> bit & 1 == 1);
        members.map(|bit| name(&format!("nvme{bit}"))).collect()
    })
}

#[test]
fn whatever_happens_between_looks_the_book_never_names_a_wrong_socket() {
    let (mut known, mut alone) = (0, 0);
    for seed in 1..=300 {
        let (mut truth, mut book) = (Truth::new(seed), SocketBook::new());
        for _ in 0..40 {
            for _ in 0..=truth.below(2) {
                truth.something_happens();
            }
            book.reconcile(&truth.controllers(), &truth.sockets());
            while book.wants_another_look() {
                book.reconcile(&truth.controllers(), &truth.sockets());
            }
            for asked in every_set() {
                let Ok(found) = book.sockets_of(&asked) else { continue };
                let found: BTreeSet<_> = found.iter().map(|id| id.cookie[0]).collect();
                assert_eq!(found, truth.of(&asked), "{asked:?}");
                known += 1;
                alone += u32::from(asked.len() == 1);
            }
        }
    }
    assert!(known > 10_000 && alone > 5_000, "the book knows something: {known}, {alone}");
}

/// A look is not taken at one moment. What happens between its two halves may leave the book with
/// sockets that are ending, but never with one that now is another's.
#[test]
fn what_happens_within_a_look_gives_nobody_anothers_socket() {
    let (mut known, mut wrong) = (0, 0);
    for seed in 1..=300 {
        let (mut truth, mut book) = (Truth::new(seed), SocketBook::new());
        for _ in 0..40 {
            if truth.below(2) == 0 {
                truth.something_happens();
            }
            let controllers = truth.controllers();
            for _ in 0..truth.below(3) {
                truth.something_happens();
            }
            book.reconcile(&controllers, &truth.sockets());
            for asked in every_set() {
                let Ok(found) = book.sockets_of(&asked) else { continue };
                let others: Names = truth
                    .controllers
                    .keys()
                    .filter(|name| !asked.contains(*name))
                    .cloned()
                    .collect();
                let others = truth.of(&others);
                known += 1;
                wrong += u32::from(found.iter().any(|id| others.contains(&id.cookie[0])));
            }
        }
    }
    assert_eq!(wrong, 0, "of {known}");
    assert!(known > 1_000, "the book knows something: {known}");
}
