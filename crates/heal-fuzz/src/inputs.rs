//! Promises that more than one target makes.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// `value` written as JSON is read back as itself. On the way every newtype in it is checked anew,
/// so a value that came in past its own gate does not get through here.
pub(crate) fn survives_json<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = serde_json::to_string(value).expect("plain data can be written");
    let again: T = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{value:?} is not read back: {error}\n{text}"));
    assert_eq!(again, *value, "another value is read back than was written");
}

/// Text for people holds nothing that a terminal acts on, and has an end.
pub(crate) fn fit_for_people(text: &str) {
    let odd = |c: &char| c.is_control() && *c != '\n';
    assert_eq!(text.chars().find(odd), None, "a message holds a control character: {text:?}");
    assert!(text.len() < 16 * 1024, "a message of {} bytes", text.len());
}

/// Some lengths to which something of `length` bytes may be cut: at both ends one byte at a time,
/// in between further apart, so that the number of tries is bounded.
pub(crate) fn cuts(length: usize) -> impl Iterator<Item = usize> {
    let step = (length / 64).max(1);
    let ends = (0..length.min(24)).chain(length.saturating_sub(24)..length);
    ends.chain((0..length).step_by(step))
}

/// Splits an input at its first zero byte: two inputs in one.
pub(crate) fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}
