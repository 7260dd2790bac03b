//! How people write durations, sizes and portals in a file, and how they are shown again.
//!
//! | what | written | type |
//! |---|---|---|
//! | duration | `"250ms"`, `"90s"`, `"10m"`, `"1h30m"`, `"2d"` | [`HumanDuration`] |
//! | grace period | a duration, or `"never"` | [`HumanGrace`] |
//! | size | `"1GiB"`, `"512MiB"`, or bytes: `1073741824` | [`HumanSize`] |
//! | portal | `"tcp://10.0.0.1:4420"`, `"tcp://[fe80::1%eth0]:4420?host=10.0.0.2&iface=eth1"` | [`HumanPortal`] |
//!
//! A number alone is never a duration: is `30` seconds or minutes? Only one unit system for sizes,
//! the binary one; `1GB` is refused with a word rather than taken for either.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use heal_types::{GracePolicy, InterfaceName, InvalidText, Portal, SectorCount, TransportAddress};
use serde::{Deserialize, Deserializer, Serialize, de};

/// The units of a duration in the order in which they are written, in milliseconds.
const TIME_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The longest duration that is taken: longer is a slip of the keyboard.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// The port that NVMe over Fabrics has at IANA.
const NVME_PORT: u16 = 4420;

/// Reads `250ms`, `90s`, `10m`, `1h30m`, `2d`.
///
/// # Errors
/// When it is not of that form, or longer than ten years.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidText> {
    let bad = |why| InvalidText::new("duration", text, why);
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(bad("it is empty"));
    }
    let mut units = TIME_UNITS.iter();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if number.is_empty() {
            return Err(bad("it is not of the form 90s, 10m or 1h30m"));
        }
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        if unit.is_empty() {
            return Err(bad("it has no unit: write ms, s, m, h or d"));
        }
        let factor = units
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| bad("the units are d, h, m, s and ms, each once and in this order"))?;
        let number: u64 = number.parse().map_err(|_| bad("it is too long"))?;
        total = number
            .checked_mul(factor)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| bad("it is too long"))?;
        rest = tail;
    }
    let duration = Duration::from_millis(total);
    if duration > LONGEST {
        return Err(bad("it is longer than ten years"));
    }
    Ok(duration)
}

/// Reads a duration, or `never`.
///
/// # Errors
/// When it is neither.
pub fn parse_grace(text: &str) -> Result<GracePolicy, InvalidText> {
    if text.trim() == "never" {
        return Ok(GracePolicy::Never);
    }
    parse_duration(text).map(GracePolicy::After)
}

/// Reads `1GiB`, `512MiB` or a number of bytes.
///
/// # Errors
/// When it is not of that form, zero, or not a whole number of sectors.
pub fn parse_size(text: &str) -> Result<SectorCount, InvalidText> {
    let bad = |why| InvalidText::new("size", text, why);
    let trimmed = text.trim();
    let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(digits);
    let unit = unit.trim();
    let factor = if unit.is_empty() {
        1
    } else {
        SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, factor)| *factor)
            .ok_or_else(|| bad("it is neither bytes nor a number with KiB, MiB, GiB or TiB"))?
    };
    let number: u64 = number.parse().map_err(|_| bad("it is not a number"))?;
    let bytes = number.checked_mul(factor).ok_or_else(|| bad("it is too large"))?;
    sectors(bytes).map_err(bad)
}

fn sectors(bytes: u64) -> Result<SectorCount, &'static str> {
    if bytes == 0 {
        return Err("it is zero");
    }
    if bytes % 512 != 0 {
        return Err("it is not a whole number of 512-byte sectors");
    }
    Ok(SectorCount(bytes / 512))
}

/// Reads `tcp://10.0.0.1:4420` or `rdma://[fe80::1%eth0]:4420?host=10.0.0.2&iface=eth1`. Without a
/// port it is 4420.
///
/// # Errors
/// When it is not of that form.
pub fn parse_portal(text: &str) -> Result<Portal, InvalidText> {
    let bad = |why| InvalidText::new("portal", text, why);
    let (transport, rest) = text
        .trim()
        .split_once("://")
        .ok_or_else(|| bad("it is not of the form tcp://ADDRESS:PORT"))?;
    let transport = transport.parse().map_err(|_| bad("its transport is neither tcp nor rdma"))?;
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (address, port) = split_port(place).map_err(bad)?;
    let mut portal = Portal {
        transport,
        address: address.parse().map_err(|_| bad("its address is not valid"))?,
        port: match port {
            None => NVME_PORT,
            Some(port) => match port.parse::<u16>() {
                Ok(0) | Err(_) => return Err(bad("its port is not a number from 1 to 65535")),
                Ok(port) => port,
            },
        },
        host_address: None,
        host_interface: None,
    };
    for parameter in query.into_iter().flat_map(|query| query.split('&')) {
        set_parameter(&mut portal, parameter).map_err(bad)?;
    }
    Ok(portal)
}

/// Splits `ADDRESS:PORT`; an IPv6 address stands in brackets, or its colons would be ambiguous.
fn split_port(place: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, tail) = rest.split_once(']').ok_or("a bracket is not closed")?;
        return match tail.strip_prefix(':') {
            Some(port) => Ok((address, Some(port))),
            None if tail.is_empty() => Ok((address, None)),
            None => Err("something other than a port follows the bracket"),
        };
    }
    match place.split_once(':') {
        None => Ok((place, None)),
        Some((_, port)) if port.contains(':') => Err("an IPv6 address is written in brackets"),
        Some((address, port)) => Ok((address, Some(port))),
    }
}

fn set_parameter(portal: &mut Portal, parameter: &str) -> Result<(), &'static str> {
    let (name, value) =
        parameter.split_once('=').ok_or("a parameter is not of the form NAME=VALUE")?;
    match name {
        "host" => {
            let value =
                value.strip_prefix('[').and_then(|value| value.strip_suffix(']')).unwrap_or(value);
            let address =
                TransportAddress::new(value).map_err(|_| "its host address is not valid")?;
            set_once(&mut portal.host_address, address)
        }
        "iface" => {
            let interface = InterfaceName::new(value).map_err(|_| "its interface is not valid")?;
            set_once(&mut portal.host_interface, interface)
        }
        _ => Err("its parameters are host=ADDRESS and iface=INTERFACE"),
    }
}

fn set_once<T>(place: &mut Option<T>, value: T) -> Result<(), &'static str> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err("a parameter is given twice"),
    }
}

/// At most `max` characters of `text`, on one line: what a terminal would act on becomes a space.
#[must_use]
pub fn printable(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A duration as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanDuration(pub Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0s");
        }
        for (unit, factor) in TIME_UNITS {
            if rest >= factor {
                write!(f, "{}{unit}", rest / factor)?;
                rest %= factor;
            }
        }
        Ok(())
    }
}

/// A grace period as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanGrace(pub GracePolicy);

impl fmt::Display for HumanGrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            GracePolicy::After(duration) => HumanDuration(duration).fmt(f),
            GracePolicy::Never => f.write_str("never"),
        }
    }
}

/// A portal as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HumanPortal(pub Portal);

impl fmt::Display for HumanPortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        let host = self.0.host_address.as_ref().map(|host| format!("host={host}"));
        let iface = self.0.host_interface.as_ref().map(|name| format!("iface={name}"));
        for (sign, part) in
            ["?", if host.is_some() { "&" } else { "?" }].iter().zip([&host, &iface])
        {
            if let Some(part) = part {
                write!(f, "{sign}{part}")?;
            }
        }
        Ok(())
    }
}

/// A size as people write it: text with a unit, or a bare number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct HumanSize(pub SectorCount);

impl fmt::Display for HumanSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.bytes();
        let (unit, factor) = SIZE_UNITS
            .into_iter()
            .find(|(_, factor)| bytes >= *factor && bytes % *factor == 0)
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", bytes / factor)
    }
}

impl<'de> Deserialize<'de> for HumanSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = HumanSize;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"1GiB\", or bytes")
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<HumanSize, E> {
                sectors(bytes)
                    .map(HumanSize)
                    .map_err(|why| E::custom(InvalidText::new("size", &bytes.to_string(), why)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<HumanSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `FromStr` through the parser, and the conversions that serde goes through.
macro_rules! human {
    ($name:ident, $parse:path) => {
        impl FromStr for $name {
            type Err = InvalidText;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $parse(text).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidText;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    };
}
human!(HumanDuration, parse_duration);
human!(HumanGrace, parse_grace);
human!(HumanPortal, parse_portal);
human!(HumanSize, parse_size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_as_people_write_it_and_prints_the_same() {
        for (text, millis) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["0s", "250ms", "1m30s", "10m", "1h30m", "1d2h3m4s5ms"] {
            assert_eq!(text.parse::<HumanDuration>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_duration_that_leaves_a_doubt_is_refused() {
        for text in [
            "",
            "10",
            "m",
            "-10m",
            "10 m",
            "10min",
            "1m1m",
            "1s1m",
            "1.5h",
            "20y",
            "99999999999999999999s",
            "18446744073709551615d",
            "4000d",
            "10m ago",
            "١٠m",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_grace("never").unwrap(), GracePolicy::Never);
        assert!(parse_grace("Never").is_err());
    }

    #[test]
    fn a_size_is_bytes_or_has_a_binary_unit() {
        assert_eq!(parse_size("1GiB").unwrap(), SectorCount(1 << 21));
        assert_eq!(parse_size("1024").unwrap(), SectorCount(2));
        assert_eq!(parse_size("3 MiB").unwrap(), SectorCount(6144));
        for text in ["", "0", "0GiB", "1GB", "1G", "513", "1.5GiB", "-1", "GiB", "99999999TiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["1GiB", "1536MiB", "512B"] {
            assert_eq!(text.parse::<HumanSize>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_portal_survives_its_text_form() {
        for text in [
            "tcp://10.0.0.1:4420",
            "rdma://target-7.example:4421",
            "tcp://[fe80::1%eth0]:4420?host=10.0.0.2&iface=eth1",
            "tcp://10.0.0.1:4420?iface=eth1",
            "tcp://10.0.0.1:4420?host=10.0.0.2",
        ] {
            assert_eq!(text.parse::<HumanPortal>().unwrap().to_string(), text);
        }
        assert_eq!(parse_portal("tcp://[::1]").unwrap().port, 4420);
        assert_eq!(parse_portal("tcp://a").unwrap().port, 4420);
    }

    #[test]
    fn a_portal_that_leaves_a_doubt_is_refused() {
        for text in [
            "10.0.0.1:4420",
            "fc://10.0.0.1:4420",
            "tcp://",
            "tcp://:4420",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://fe80::1:4420",
            "tcp://[fe80::1",
            "tcp://[::1]4420",
            "tcp://a:1?host",
            "tcp://a:1?x=y",
            "tcp://a:1?iface=e&iface=f",
            "tcp://a b:1",
            "tcp://--host:1",
            "tcp://a:1?iface=../x",
            "tcp://a:1?",
        ] {
            assert!(parse_portal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn text_from_outside_stays_on_one_line() {
        assert_eq!(printable("a\nb\x1b[2Jc", 4), "a b ");
    }
}
