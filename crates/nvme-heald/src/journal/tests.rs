use std::os::unix::net::UnixDatagram;

use heal_core::audit::AuditKind;
use heal_types::{Slot, WallTime};
use tracing_subscriber::layer::SubscriberExt;

use super::*;
use crate::testing::Scratch;

fn audit(severity: Severity, message: &str) -> AuditEntry {
    AuditEntry {
        kind: AuditKind::LegLost,
        severity,
        at: WallTime(1),
        message: message.to_owned(),
        incident: None,
        action: None,
        slot: Some(Slot(1)),
        fields: vec![("CAUSE", "md".to_owned()), ("REASON", "a\nb".to_owned())],
    }
}

#[test]
fn an_audit_entry_has_its_fields_under_their_stable_names() {
    let id = ArrayId::from_bytes([7; 16]);
    let device = DeviceName::new("md127").unwrap();
    let entry = Entry::audit(&audit(Severity::Warning, "gone"), Some((id, Some(&device))));
    for (name, value) in [
        ("MESSAGE", "gone"),
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "nvme-heald"),
        ("MESSAGE_ID", "fea7d3917a094e3d9985c25ca2d35cb0"),
        ("NVME_HEAL_EVENT", "leg.lost"),
        ("NVME_HEAL_SLOT", "1"),
        ("NVME_HEAL_ARRAY", "md127"),
        ("NVME_HEAL_ARRAY_UUID", "07070707:07070707:07070707:07070707"),
        ("NVME_HEAL_CAUSE", "md"),
    ] {
        assert_eq!(entry.field(name), Some(value), "{name}");
    }
}

#[test]
fn a_value_with_a_line_feed_goes_out_with_its_length() {
    let mut entry = Entry::new(6, "one\ntwo");
    entry.put("X", "plain");
    let bytes = wire::datagram(&entry);
    let head = b"MESSAGE\n\x07\0\0\0\0\0\0\0one\ntwo\nPRIORITY=6\n";
    assert_eq!(&bytes[..head.len()], head);
    assert!(bytes.ends_with(b"X=plain\n"));
}

#[test]
fn a_name_is_made_fit_and_a_value_is_cut_between_characters() {
    assert_eq!(wire::field_name("ARRAY_UUID"), "ARRAY_UUID");
    assert_eq!(wire::field_name("a-b é"), "A_B__");
    assert_eq!(wire::field_name(&"x".repeat(200)).len(), 54);
    let mut entry = Entry::new(6, "m");
    entry.put("LONG", &format!("{}é", "x".repeat(MAX_VALUE - 1)));
    assert_eq!(entry.field("LONG").unwrap().len(), MAX_VALUE - 1);
}

#[test]
fn a_journald_that_never_reads_costs_the_caller_nothing_and_drops_are_counted() {
    let scratch = Scratch::new("journal-stalled");
    let path = scratch.path().join("socket");
    let listener = UnixDatagram::bind(&path).unwrap();
    let journal = Journal::start(&path).unwrap();
    let began = Instant::now();
    for _ in 0..ROOM + 2000 {
        journal.send(Entry::audit(&audit(Severity::Info, "noise"), None));
    }
    journal.send(Entry::audit(&audit(Severity::Critical, "last leg"), None));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let dropped = journal.dropped();
    assert!((1000..=2001).contains(&dropped), "{dropped}");

    // Once it reads again, it is told how many are missing, and nothing important is.
    listener.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut buffer = vec![0; 64 * 1024];
    let (mut told, mut critical) = (false, false);
    while !(told && critical) {
        let length = listener.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        told |= text.contains(&format!("MESSAGE={dropped} journal entries were dropped"));
        critical |= text.contains("MESSAGE=last leg\nPRIORITY=2\n");
    }
    journal.flush(Duration::from_secs(5));
}

#[test]
fn what_is_less_important_goes_first() {
    let journal = Journal::kept();
    journal.send(Entry::new(4, "warning"));
    for _ in 1..ROOM {
        journal.send(Entry::new(6, "info"));
    }
    journal.send(Entry::new(7, "debug is not worth anybody's place"));
    assert_eq!(journal.entries().len(), ROOM);
    assert!(journal.entries().iter().all(|entry| entry.priority < 7));
    journal.send(Entry::new(2, "critical"));
    let entries = journal.entries();
    assert_eq!((entries.len(), entries[0].priority), (ROOM, 4));
    assert_eq!(entries[ROOM - 1].priority, 2);
    assert_eq!(journal.dropped(), 2);
}

#[test]
fn a_journald_that_went_away_does_not_hold_the_end_up() {
    let scratch = Scratch::new("journal-gone");
    let path = scratch.path().join("socket");
    let listener = UnixDatagram::bind(&path).unwrap();
    let journal = Journal::start(&path).unwrap();
    drop(listener);
    journal.send(Entry::new(4, "nobody hears"));
    let began = Instant::now();
    journal.flush(Duration::from_secs(3));
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn diagnostics_take_the_same_way() {
    let journal = Journal::kept();
    let subscriber = tracing_subscriber::registry().with(Diagnostics::new(journal.clone()));
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!(array = "md127", tries = 3, "it is slow");
    });
    let entries = journal.entries();
    assert_eq!(entries[0].field("MESSAGE"), Some("it is slow array=md127 tries=3"));
    assert_eq!(entries[0].field("PRIORITY"), Some("4"));
    assert_eq!(entries[0].field("NVME_HEAL_TRIES"), Some("3"));
}
