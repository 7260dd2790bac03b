//! Single words: what every border turns text into.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use heal_host::network::Numeric;
use heal_provisioner::text::{HumanDuration, HumanGrace, HumanPortal, HumanSize, printable};
use heal_types::{
    Alias, ArrayId, ArrayState, CallKey, ControllerName, ControllerState, DevT, DeviceName,
    FastIoFail, InterfaceName, LegFlags, MdDeviceId, NamespaceId, NamespaceIds, Nqn, ReplicaId,
    SyncAction, TransportAddress, TransportKind, VolumeId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::inputs::{fit_for_people, survives_json};

pub(crate) fn words(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    name::<DeviceName>(text, 31);
    name::<ControllerName>(text, 31);
    name::<InterfaceName>(text, 15);
    name::<Nqn>(text, 223);
    name::<ReplicaId>(text, 128);
    name::<VolumeId>(text, 128);
    name::<Alias>(text, 64);
    name::<CallKey>(text, 128);
    if let Some(address) = name::<TransportAddress>(text, 255) {
        if let Some(numeric) = Numeric::of(&address) {
            assert_eq!(numeric.ip, numeric.ip.to_canonical());
        }
    }
    for id in [
        hexadecimal::<ArrayId>(text).is_some(),
        hexadecimal::<MdDeviceId>(text).is_some(),
        hexadecimal::<NamespaceId>(text).is_some(),
    ] {
        assert!(!id || text.bytes().any(|byte| byte.is_ascii_hexdigit() && byte != b'0'));
    }
    if let Ok(id) = text.parse::<NamespaceId>() {
        let ids = NamespaceIds::new(vec![id, id]);
        assert!(ids.contains(&id) && ids.iter().count() == 1);
    }
    canonical::<DevT>(text);
    canonical::<FastIoFail>(text);
    canonical::<TransportKind>(text);
    canonical::<ControllerState>(text);
    canonical::<ArrayState>(text);
    let _ = text.parse::<SyncAction>().map_err(|error| fit_for_people(&error.to_string()));
    let flags = LegFlags::parse(text);
    assert_eq!(LegFlags::parse(&flags.to_string()), flags);
}

/// A name: what it takes it keeps as it is, and it takes nothing that a terminal, a path or an
/// option parser would read as something else.
fn name<T>(text: &str, longest: usize) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Clone + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let value = match text.parse::<T>() {
        Ok(value) => value,
        Err(error) => {
            fit_for_people(&error.to_string());
            assert!(serde_json::from_value::<T>(text.into()).is_err(), "serde has another gate");
            return None;
        }
    };
    assert_eq!(value.to_string(), text, "it is kept as it is");
    assert!(!text.is_empty() && text.len() <= longest, "{text:?}");
    assert!(!text.starts_with('-'), "{text:?} could become an option");
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text:?}");
    survives_json(&value);
    Some(value)
}

/// An id of hexadecimal digits: what was read prints as something that reads as the same, in the
/// one form that is compared and shown.
fn hexadecimal<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Clone + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let value = text.parse::<T>().map_err(|error| fit_for_people(&error.to_string())).ok()?;
    let shown = value.to_string();
    assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&value), "{shown}");
    let digits = |text: &str| -> String {
        let digits = text.chars().filter(char::is_ascii_hexdigit);
        digits.map(|c| c.to_ascii_lowercase()).collect()
    };
    // Nothing but the digits makes the id, so it shows every digit that was written.
    assert!(digits(text).ends_with(last(&digits(&shown), 16)), "{text:?} became {shown}");
    survives_json(&value);
    Some(value)
}

fn last(text: &str, count: usize) -> &str {
    &text[text.len().saturating_sub(count)..]
}

/// A word of the kernel's: it prints as something that reads as the same.
fn canonical<T: FromStr<Err: Display> + Display + PartialEq + Debug>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let shown = value.to_string();
            assert_eq!(
                shown.parse::<T>().ok().as_ref(),
                Some(&value),
                "{text:?}, shown as {shown}"
            );
            assert!(!text.contains('+'), "{text:?} is not how the kernel writes a number");
        }
        Err(error) => fit_for_people(&error.to_string()),
    }
}

pub(crate) fn human(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    written::<HumanDuration>(text);
    written::<HumanGrace>(text);
    written::<HumanSize>(text);
    if let Some(HumanPortal(portal)) = written::<HumanPortal>(text) {
        assert!(portal.port != 0);
        survives_json(&portal);
        assert!(portal.is_served_by(&portal));
    }
    let shown = printable(text, 40);
    assert!(shown.chars().count() <= 40);
    fit_for_people(&shown);
}

fn written<T>(text: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Clone + PartialEq + Debug + Serialize + DeserializeOwned,
{
    let value = text.parse::<T>().map_err(|error| fit_for_people(&error.to_string())).ok()?;
    let shown = value.to_string();
    assert_eq!(shown.parse::<T>().ok().as_ref(), Some(&value), "{text:?}, shown as {shown:?}");
    survives_json(&value);
    Some(value)
}
