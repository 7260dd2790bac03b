//! Ten thousand answers that nobody in his right mind gives: no effect, no panic, no memory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's helper functions fail the test like the test itself"
)]

mod common;

use std::sync::Mutex;
use std::time::Duration;

use common::emulated::{Emulated, find, query};
use heal_provisioner::protocol::{Carrier, Document, MAX_DOCUMENT, Remote};
use heal_provisioner::{CallContext, call};
use heal_types::{
    Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault, Volume, WallTime,
};
use vendor_emulator::kumoscale::Options;
use vendor_emulator::server::{Answer, Fault, Heard, Service};

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(below.max(1)).unwrap()).unwrap()
    }
}

const PIECES: &[&str] = &[
    "null",
    "-1",
    "1e999",
    "0",
    "18446744073709551616",
    "\"\"",
    "\"N/A\"",
    "[]",
    "{}",
    "true",
    ",",
    "}",
    "]",
    "\"",
    "\\u0000",
    "Status 401",
    "\"Available\"",
    "\"Bad\"",
    "\"status\":\"Success\",",
    "\"volume\":null",
    "\"uuid\":\"x\",",
    "\u{202e}",
    "[[[[[[[[",
];

/// A valid answer, spoiled.
fn spoiled(valid: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut text = valid.to_vec();
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(text.len());
        let end = (at + dice.roll(40)).min(text.len());
        match dice.roll(8) {
            0 => text.truncate(at),
            1 => drop(text.drain(at..end)),
            2 => {
                if let Some(byte) = text.get_mut(at) {
                    *byte ^= u8::try_from(1 + dice.roll(255)).unwrap();
                }
            }
            3 | 4 => {
                let piece = PIECES[dice.roll(PIECES.len())];
                drop(text.splice(at..end, piece.bytes()));
            }
            5 => {
                let again = text[at..end].repeat(1 + dice.roll(50));
                drop(text.splice(at..at, again));
            }
            6 => {
                let depth = 1 + dice.roll(2000);
                drop(text.splice(at..at, "[".repeat(depth).into_bytes()));
            }
            _ => {
                let long = format!("\"{}\"", "long".repeat(dice.roll(20_000)));
                drop(text.splice(at..end, long.into_bytes()));
            }
        }
    }
    text
}

/// The most memory this process ever had, in KiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A volume that got through must be one that passes every check.
fn believable(answer: &Result<ProvisionerAnswer, ProvisionerFault>) {
    if let Ok(ProvisionerAnswer::Volume(Some(volume))) = answer {
        volume.check().unwrap();
        let asked = query();
        let by_array = volume.array.is_some_and(|array| array == asked.array);
        assert!(by_array || volume.array.is_none(), "{volume:?}");
    }
}

#[derive(Debug)]
struct Spoiler(Mutex<Vec<u8>>);

#[heal_provisioner::async_trait]
impl Carrier for Spoiler {
    fn name(&self) -> &str {
        "spoiler"
    }

    async fn carry(&self, _: &CallContext, _: Document) -> Result<Vec<u8>, ProvisionerFault> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn eight_thousand_spoiled_documents_are_answers_or_faults() {
    let valid = br#"{"protocol":1,"answer":{"volume":{"id":"vol-7","array":
        "8e0a1b6c:1f2e3d4c:5b6a7988:00112233","copies":2,"grace":"10m","replicas":[{"id":"r1",
        "state":"available","nqn":"nqn.x:1","namespace":"6fd1ee4c-3f2c-4f6f-8a44-000000000001",
        "portals":["tcp://10.0.0.1:4420"],"size":33554432},{"id":"r2","state":"missing","nqn":
        "nqn.x:2","namespace":"6fd1ee4c-3f2c-4f6f-8a44-000000000002","portals":
        ["tcp://10.0.0.2:4420"]}]}}}"#;
    let backend = Remote::new(Spoiler(Mutex::default()));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (before, mut faults) = (peak(), 0);
    for _ in 0..8000 {
        *backend.carrier().0.lock().unwrap() = spoiled(valid, &mut dice);
        let find = ProvisionerCall::FindVolume(query());
        let answer = call(&backend, &find, Duration::from_secs(5)).await;
        believable(&answer);
        faults += usize::from(answer.is_err());
    }
    assert!(
        (4000..8000).contains(&faults),
        "{faults} faults: the spoiling is too strong or too weak"
    );
    // The worst that fits: as many elements as a document can hold.
    *backend.carrier().0.lock().unwrap() = b"[".repeat(MAX_DOCUMENT);
    call(&backend, &ProvisionerCall::FindVolume(query()), Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(peak() - before < 64 * 1024, "{} KiB more", peak() - before);
}

async fn valid_answer(emulated: &Emulated, path: &str) -> Vec<u8> {
    let heard = Heard {
        method: "GET".into(),
        path: path.into(),
        authorization: None,
        content_type: None,
        key: None,
        body: "".into(),
    };
    emulated.service.answer(heard).await.body.to_vec()
}

fn changes(volume: &Volume, number: usize) -> [ProvisionerCall; 3] {
    let key = |verb: &str| format!("{verb}-{number}").parse().unwrap();
    let (volume, replica) = (volume.id.clone(), volume.replicas[0].id.clone());
    [
        ProvisionerCall::RequestReplacement {
            volume: volume.clone(),
            lost: replica.clone(),
            why: "lost".into(),
            key: key("request"),
        },
        ProvisionerCall::Report {
            volume: volume.clone(),
            replica: replica.clone(),
            condition: Condition::Missing,
            since: WallTime(0),
            key: key("report"),
        },
        ProvisionerCall::ConfirmRemoved { volume, replica, key: key("confirm") },
    ]
}

#[tokio::test]
async fn two_thousand_spoiled_lists_of_kumoscale_change_nothing_when_they_are_invalid() {
    let emulated = Emulated::start(Options::default()).await;
    let backend = emulated.backend();
    let volume = find(&*backend).await;
    let path = format!("/volumes/{}", volume.id);
    let valid = valid_answer(&emulated, &path).await;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let (before, mut invalid) = (peak(), 0);
    for number in 0..2000 {
        let fresh = common::emulated::stage(common::emulated::UUID, "db", 2, 100, &[100]);
        emulated.service.change(|model| *model = fresh.model());
        let say = Fault::Say(Answer::ok(spoiled(&valid, &mut dice)));
        emulated.server.plan("GET", "/volumes/", 1, say);
        let changed = |line: &&vendor_emulator::server::Line| line.method != "GET";
        let mutations =
            |log: Vec<vendor_emulator::server::Line>| log.iter().filter(changed).count();
        let so_far = mutations(emulated.server.log());
        let asked = match number % 4 {
            3 => ProvisionerCall::FindVolume(query()),
            which => changes(&volume, number)[which].clone(),
        };
        let answer = call(&*backend, &asked, Duration::from_secs(5)).await;
        believable(&answer);
        if answer.is_err_and(|fault| fault.class == FaultClass::Invalid) {
            invalid += 1;
            let after = mutations(emulated.server.log());
            assert_eq!(after, so_far, "an invalid answer had an effect: {asked:?}");
        }
        emulated.server.heal();
    }
    assert!(invalid > 800, "{invalid} were invalid");
    assert!(peak() - before < 64 * 1024, "{} KiB more", peak() - before);
}
