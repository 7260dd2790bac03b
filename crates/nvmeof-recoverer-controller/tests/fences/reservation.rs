//! The `reservation` fence, against a target in a process that speaks NVMe/TCP and keeps the rules
//! of the specification.

use std::sync::Arc;
use std::time::Duration;

use heal_types::Nqn;
use nvmeof_recoverer::plan::evidence::StillOpen;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;
use nvmeof_recoverer_controller::crd;
use nvmeof_recoverer_controller::fence::Verb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::contract::{self, Asked, Ground, NEW, NODES, NQN, OLD, host, host_id, means, uuid};
use crate::target::{Able, State, Target};

const US: &str = "nqn.2026-01.org.example:recoverer";

struct Wire {
    port: u16,
    target: Arc<Target>,
    fence: Asked,
}

fn id_of(nqn: &str) -> [u8; 16] {
    host_id(NODES.iter().find(|(_, it, _)| *it == nqn).unwrap().2)
}

fn us(until_power_loss: bool) -> crd::Fence {
    let host_id = uuid(host_id(0xff));
    let host_nqn = Nqn::new(US).unwrap();
    crd::Fence::Reservation(crd::Reservation { host_nqn, host_id, until_power_loss })
}

impl Ground for Wire {
    fn writes(&self, host: &str) -> bool {
        let begun = self.target.begin(id_of(host));
        self.target.land();
        begun
    }

    fn settles(&self) {}
}

impl Drop for Wire {
    fn drop(&mut self) {
        let crashed = self.target.set(|state| state.crashed);
        assert!(!crashed || std::thread::panicking(), "a kernel's target would have panicked");
    }
}

impl Wire {
    async fn open() -> Self {
        Self::with(Able::default()).await
    }

    async fn with(able: Able) -> Self {
        Self::asked_by(us(false), able).await
    }

    async fn asked_by(us: crd::Fence, able: Able) -> Self {
        let target = Arc::new(Target::default());
        target.set(|state| state.able = able);
        let port = Target::listen(Arc::clone(&target)).await;
        let fence = Asked(means(None).of(&contract::target(us, port)));
        Self { port, target, fence }
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let wire = Wire::open().await;
    contract::is_kept(&wire.fence, &wire).await;
    wire.target.set(|state| {
        assert!(state.connected.iter().all(|(_, subsystem)| subsystem == NQN));
    });
}

#[tokio::test]
async fn it_keeps_the_contract_on_a_target_that_forgets_when_a_person_says_that_this_is_enough() {
    let wire = Wire::asked_by(us(true), Able { lasting: false, ..Able::default() }).await;
    contract::is_kept(&wire.fence, &wire).await;
}

#[tokio::test]
async fn what_a_host_has_under_way_is_over_when_it_is_closed_though_it_never_reserved_anything() {
    let wire = Wire::open().await;
    for nqn in [OLD, NEW] {
        assert!(wire.target.begin(id_of(nqn)));
    }
    let holders = vec![host(OLD), host(NEW)];
    assert_eq!(wire.fence.ask_of(Verb::Close, 7, holders).await, Answer::Done);
    wire.fence.proof(7).await.unwrap();
    wire.target.set(|state| assert!(state.under_way.is_empty(), "it lands later"));
}

#[tokio::test]
async fn a_leader_that_dies_while_a_write_is_under_way_leaves_no_proof_behind() {
    let wire = Wire::open().await;
    wire.target.set(|state| state.slow = true);
    assert!(wire.target.begin(id_of(OLD)));
    for _ in 0..3 {
        wire.target.set(|state| state.asked.clear());
        // It is ours since the first of them; the others are kept waiting by what that one began.
        let ours =
            |state: &mut State| state.asked.contains(&0x0e) && state.holder == Some(host_id(0xff));
        let until_ours = async {
            while !wire.target.set(ours) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::select! {
            answer = wire.fence.ask(Verb::Close, 7) => panic!("{answer:?} with a write under way"),
            () = until_ours => {}
        }
        assert_eq!(wire.fence.proof(7).await.unwrap_err(), StillOpen::Reserved);
        wire.target.set(|state| assert_eq!(state.under_way, [id_of(OLD)]));
    }
    wire.target.land();
    assert_eq!(wire.fence.ask(Verb::Close, 7).await, Answer::Done);
    wire.fence.proof(7).await.unwrap();
}

#[tokio::test]
async fn a_host_that_was_reserved_for_and_not_closed_for_is_not_forgotten_by_the_next_leader() {
    let wire = Wire::open().await;
    for nqn in [OLD, NEW] {
        assert!(wire.target.begin(id_of(nqn)));
    }
    // A leader that died when it had reserved for the first of them.
    let adopted = 0x6e77 << 48;
    wire.target.set(|state| {
        state.registrants.push((id_of(OLD), adopted));
        (state.holder, state.kind, state.lasting) = (Some(id_of(OLD)), 2, true);
    });
    let holders = vec![host(OLD), host(NEW)];
    assert_eq!(wire.fence.ask_of(Verb::Close, 7, holders).await, Answer::Done);
    wire.target.set(|state| assert!(state.under_way.is_empty(), "it lands later"));
}

#[tokio::test]
async fn a_host_is_reserved_for_before_it_connects_and_what_it_reads_is_not_asked() {
    let wire = Wire::open().await;
    assert_eq!(wire.fence.ask(Verb::Close, 7).await, Answer::Done);
    assert_eq!(wire.fence.admit(NEW, 7).await, Answer::Done);
    wire.target.set(|state| {
        assert_eq!(state.holder, Some(id_of(NEW)));
        assert_eq!(state.registrants.len(), 1, "we gave it away");
        assert!(!state.asked.iter().any(|opcode| matches!(opcode, 0x01 | 0x02)), "read or written");
    });
}

/// Between what a leader sees and what it does, another one closes, or closes and admits.
#[tokio::test]
async fn a_leader_that_is_overtaken_between_looking_and_acting_changes_nothing() {
    let newer = |state: &mut State, admitted: bool| {
        state.registrants.clear();
        let (who, key) = match admitted {
            true => (id_of(NEW), 0x6e77 << 48 | 9),
            false => (host_id(0xff), 0x6e76 << 48 | 9),
        };
        state.registrants.push((who, key));
        state.holder = Some(who);
    };
    for admitted in [false, true] {
        for verb in [Verb::Close, Verb::Admit(host(OLD))] {
            let wire = Wire::open().await;
            assert_eq!(wire.fence.ask(Verb::Close, 7).await, Answer::Done);
            wire.target.set(|state| {
                state.overtaken = Some(Box::new(move |it: &mut State| newer(it, admitted)));
            });
            let generation = if verb == Verb::Close { 8 } else { 7 };
            let answer = wire.fence.ask(verb.clone(), generation).await;
            assert!(matches!(answer, Answer::Again(_)), "{verb:?}: {answer:?}");
            assert!(matches!(wire.fence.ask(verb, generation).await, Answer::Refused(_)));
            assert!(!wire.writes(OLD));
            assert_eq!(wire.writes(NEW), admitted);
        }
    }
}

#[tokio::test]
async fn keys_that_a_move_left_behind_are_taken_off() {
    let wire = Wire::open().await;
    assert_eq!(wire.fence.ask(Verb::Close, 7).await, Answer::Done);
    // It died when the new node had a key and no reservation.
    wire.target.set(|state| state.registrants.push((id_of(NEW), 0x6e77 << 48 | 7)));
    assert_eq!(wire.fence.proof(7).await.unwrap_err(), StillOpen::Reserved);
    assert_eq!(wire.fence.ask(Verb::Close, 8).await, Answer::Done);
    wire.fence.proof(8).await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_reserved_is_left_alone() {
    let wire = Wire::open().await;
    wire.target.set(|state| {
        state.registrants.push(([9; 16], 4711));
        (state.holder, state.kind, state.lasting) = (Some([9; 16]), 1, true);
    });
    for verb in [Verb::Close, Verb::Admit(host(NEW))] {
        assert!(matches!(wire.fence.ask(verb, 7).await, Answer::Refused(_)));
    }
    wire.target.set(|state| assert_eq!(state.registrants, [([9; 16], 4711)]));
}

#[tokio::test]
async fn a_target_whose_reservations_are_no_fence_is_refused_before_anything_is_done() {
    for able in [
        Able { reservations: false, ..Able::default() },
        Able { exclusive_access: false, ..Able::default() },
        Able { lasting: false, ..Able::default() },
        Able { in_capsule: 4, ..Able::default() },
        Able { authentication: true, ..Able::default() },
        Able { namespace: [3; 16], ..Able::default() },
    ] {
        let wire = Wire::with(able.clone()).await;
        assert_eq!(wire.fence.0.health().await, FenceHealth::Silent, "{able:?}");
        for verb in [Verb::Close, Verb::Report, Verb::Admit(host(NEW))] {
            let answer = wire.fence.ask(verb, 7).await;
            assert!(matches!(answer, Answer::Refused(_)), "{able:?}: {answer:?}");
        }
        wire.target.set(|state| assert!(state.registrants.is_empty()));
    }
}

#[tokio::test]
async fn a_node_that_the_target_does_not_list_cannot_be_closed_for_or_let_in() {
    let wire = Wire::open().await;
    let mut stranger = host(NEW);
    stranger.host_nqn = Nqn::new("nqn.2026-01.org.example:stranger").ok();
    let closed = wire.fence.ask_of(Verb::Close, 7, vec![host(OLD), stranger.clone()]).await;
    assert!(matches!(closed, Answer::Refused(_)), "{closed:?}");
    assert!(wire.fence.proof(7).await.is_err());
    let let_in = wire.fence.ask(Verb::Admit(stranger), 7).await;
    assert!(matches!(let_in, Answer::Refused(_)), "{let_in:?}");
}

/// All of a question has its time, and it takes a connection for each node that may be using it.
#[tokio::test]
async fn a_portal_that_is_silent_does_not_take_the_time_of_each_connection() {
    let wire = Wire::open().await;
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut target = contract::target(us(false), wire.port);
    let port = silent.local_addr().unwrap().port();
    target.portals.insert(0, crd::Portal { address: [127, 0, 0, 1].into(), port });
    let fence = Asked(means(None).of(&target));
    let closing = fence.ask_of(Verb::Close, 7, vec![host(OLD), host(NEW)]);
    let closed = tokio::time::timeout(Duration::from_secs(4), closing).await;
    assert_eq!(closed.unwrap(), Answer::Done);
}

#[tokio::test]
async fn whoever_speaks_something_else_is_not_believed() {
    for words in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[1, 0, 128, 0, 255, 255, 255, 255], &[]]
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut heard = [0; 128];
                let _ = stream.read(&mut heard).await;
                let _ = stream.write_all(words).await;
            }
        });
        let fence = Asked(means(None).of(&contract::target(us(false), port)));
        for verb in [Verb::Close, Verb::Report, Verb::Admit(host(NEW))] {
            let answer = fence.ask(verb, 7).await;
            assert!(matches!(answer, Answer::Again(_)), "{answer:?}");
        }
    }
}
