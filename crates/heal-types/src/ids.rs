//! Who is who: identities as types that cannot be mixed up.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::observed::Observed;
use crate::text::{InvalidText, text_newtype};

text_newtype! {
    /// The kernel's name of a block device: `md127`, `nvme1n2`. Where to look, never who it is.
    DeviceName, "block device name", 31, |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '!')
}

text_newtype! {
    /// The kernel's name of an NVMe controller: `nvme2`.
    ControllerName, "controller name", 31, |c| c.is_ascii_alphanumeric()
}

text_newtype! {
    /// A network interface: at most 15 bytes, no slash, colon or blank (`dev_valid_name`,
    /// `net/core/dev.c`). A VLAN's name has a dot.
    InterfaceName, "interface name", 15,
    |c| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '"' | '\'')
}

text_newtype! {
    /// An NVMe qualified name: at most 223 bytes (NVM Express Base Specification, section 4.5).
    Nqn, "NQN", 223, |c| c.is_ascii_graphic()
}

text_newtype! {
    /// A replica, as its provisioner names it.
    ReplicaId, "replica id", 128, |c| c.is_ascii_graphic()
}

text_newtype! {
    /// A volume, as its provisioner names it.
    VolumeId, "volume id", 128, |c| c.is_ascii_graphic()
}

text_newtype! {
    /// The name part of an MD array (`/dev/md/NAME`, without a `host:` prefix), which provisioners
    /// use as a volume's alias.
    Alias, "array name", 64, |c| c.is_ascii_graphic() && c != '/'
}

/// A UUID newtype. MD prints its UUIDs as four groups of eight digits, everything else as RFC 9562
/// does; both are read.
macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// From the sixteen bytes in the order they stand on disk.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The sixteen bytes in the order they stand on disk.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = InvalidText;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bad = || InvalidText::new($what, text, "it is not 32 hexadecimal digits");
                let mut digits = [0; 32];
                let mut room = digits.iter_mut();
                for byte in text.trim().bytes().filter(|byte| !matches!(byte, b':' | b'-')) {
                    *room.next().ok_or_else(bad)? = byte;
                }
                let uuid = Uuid::try_parse_ascii(&digits).map_err(|_| bad())?;
                if uuid.is_nil() {
                    return Err(InvalidText::new($what, text, "it is all zeros"));
                }
                Ok(Self(uuid))
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

pub(crate) use uuid_newtype;

uuid_newtype! {
    /// The UUID in every superblock of one MD array (`set_uuid`). This is what an array *is*.
    ArrayId, "MD array UUID"
}

uuid_newtype! {
    /// The UUID of one member in its own MD superblock (`device_uuid`).
    MdDeviceId, "MD device UUID"
}

fn md_groups(uuid: &Uuid, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let hex = uuid.simple().to_string();
    write!(f, "{}:{}:{}:{}", &hex[0..8], &hex[8..16], &hex[16..24], &hex[24..32])
}

impl fmt::Display for ArrayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        md_groups(&self.0, f)
    }
}

impl fmt::Display for MdDeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        md_groups(&self.0, f)
    }
}

/// One globally unique name of a namespace (NVM Express Base Specification, section 4.5.1).
///
/// Text form: `uuid.…`, `nguid.…`, `eui.…`; a bare UUID is read as `uuid.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NamespaceId {
    /// Namespace UUID.
    Uuid(Uuid),
    /// Namespace Globally Unique Identifier, 128 bits.
    Nguid([u8; 16]),
    /// IEEE Extended Unique Identifier, 64 bits.
    Eui([u8; 8]),
}

fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    // A sign is a number's, and `from_str_radix` reads numbers.
    if digits.len() != N * 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

impl FromStr for NamespaceId {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| InvalidText::new("namespace id", text, why);
        let text = text.trim();
        let id = if let Some(hex) = text.strip_prefix("nguid.") {
            Self::Nguid(hex_bytes(hex).ok_or_else(|| bad("an NGUID has 32 hexadecimal digits"))?)
        } else if let Some(hex) = text.strip_prefix("eui.") {
            Self::Eui(hex_bytes(hex).ok_or_else(|| bad("an EUI-64 has 16 hexadecimal digits"))?)
        } else {
            let uuid = text.strip_prefix("uuid.").unwrap_or(text);
            Self::Uuid(Uuid::try_parse(uuid).map_err(|_| bad("it is not a UUID"))?)
        };
        if id.is_zero() {
            return Err(bad("it is all zeros, which means the target gave none"));
        }
        Ok(id)
    }
}

impl NamespaceId {
    fn is_zero(&self) -> bool {
        match self {
            Self::Uuid(uuid) => uuid.is_nil(),
            Self::Nguid(bytes) => bytes.iter().all(|b| *b == 0),
            Self::Eui(bytes) => bytes.iter().all(|b| *b == 0),
        }
    }
}

impl fmt::Display for NamespaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = |f: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        };
        match self {
            Self::Uuid(uuid) => write!(f, "uuid.{}", uuid.hyphenated()),
            Self::Nguid(bytes) => {
                f.write_str("nguid.")?;
                hex(f, bytes)
            }
            Self::Eui(bytes) => {
                f.write_str("eui.")?;
                hex(f, bytes)
            }
        }
    }
}

impl TryFrom<String> for NamespaceId {
    type Error = InvalidText;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<NamespaceId> for String {
    fn from(id: NamespaceId) -> String {
        id.to_string()
    }
}

/// All the names one namespace has. A namespace with none cannot be told from another and is never
/// used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamespaceIds(Vec<NamespaceId>);

impl NamespaceIds {
    /// The ids a namespace shows, in any order.
    #[must_use]
    pub fn new(mut ids: Vec<NamespaceId>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }

    /// Whether the namespace goes by `id`.
    #[must_use]
    pub fn contains(&self, id: &NamespaceId) -> bool {
        self.0.contains(id)
    }

    /// Whether it shows no id at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &NamespaceId> {
        self.0.iter()
    }
}

impl fmt::Display for NamespaceIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no id");
        }
        for (i, id) in self.0.iter().enumerate() {
            write!(f, "{}{id}", if i == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

/// A block device's number, `MAJOR:MINOR`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DevT {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for DevT {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl FromStr for DevT {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || InvalidText::new("device number", text, "it is not MAJOR:MINOR");
        let (major, minor) = text.trim().split_once(':').ok_or_else(bad)?;
        let number = |text: &str| crate::text::unsigned(text).ok_or_else(bad);
        Ok(Self { major: number(major)?, minor: number(minor)? })
    }
}

/// The kernel's disk sequence number: never reused while the machine runs (Linux 5.15,
/// `Documentation/ABI/testing/sysfs-block`, `diskseq`), so it tells a reused name from the old
/// disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DiskSeq(pub u64);

impl fmt::Display for DiskSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A place in an array: MD's `raid_disk`, counted from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot(pub u16);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A size in sectors of 512 bytes, the unit of sysfs' `size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SectorCount(pub u64);

impl SectorCount {
    /// The same in bytes, as far as 64 bits reach.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0.saturating_mul(512)
    }
}

impl fmt::Display for SectorCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sectors", self.0)
    }
}

/// Everything that together says *this* block device: checked again in the same breath as an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceIdentity {
    /// Where it was seen.
    pub device: DeviceName,
    /// Its number when it was seen.
    pub dev: DevT,
    /// Its disk sequence number when it was seen.
    pub diskseq: Observed<DiskSeq>,
    /// The namespace id it must have.
    pub namespace: NamespaceId,
    /// The subsystem it must belong to.
    pub nqn: Nqn,
}

impl fmt::Display for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.device, self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_md_uuid_reads_both_ways_and_prints_as_md_does() {
        let md: ArrayId = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap();
        let rfc: ArrayId = "8e0a1b6c-1f2e-3d4c-5b6a-798800112233\n".parse().unwrap();
        assert_eq!(md, rfc);
        assert_eq!(md.to_string(), "8e0a1b6c:1f2e3d4c:5b6a7988:00112233");
    }

    #[test]
    fn a_value_that_could_become_an_option_is_refused() {
        assert!(Nqn::new("--hostnqn=x").is_err());
        assert!(DeviceName::new("-rf").is_err());
        assert!(Alias::new("a/b").is_err());
        assert!(ReplicaId::new("").is_err());
        assert!(Nqn::new("n".repeat(224)).is_err());
        assert!(Nqn::new("nqn.2014-08.org.nvmexpress:a b").is_err());
    }

    #[test]
    fn a_device_number_is_digits_and_nothing_else() {
        assert_eq!("259:3\n".parse::<DevT>().unwrap().to_string(), "259:3");
        for text in ["259:+3", "+259:3", "259:-3", "259: 3", "259:", ":3", "259"] {
            assert!(text.parse::<DevT>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_namespace_without_an_id_has_none_rather_than_zeros() {
        for text in [
            "00000000-0000-0000-0000-000000000000",
            "nguid.00000000000000000000000000000000",
            "eui.0000000000000000",
        ] {
            assert!(text.parse::<NamespaceId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_namespace_id_survives_its_text_form() {
        for text in [
            "uuid.6fd1ee4c-3f2c-4f6f-8a44-0a7ef2a0a001",
            "nguid.0123456789abcdef0123456789abcdef",
            "eui.0123456789abcdef",
        ] {
            assert_eq!(text.parse::<NamespaceId>().unwrap().to_string(), text);
        }
        assert!("nguid.0123".parse::<NamespaceId>().is_err());
        assert!("eui.é123456789abcde".parse::<NamespaceId>().is_err());
        assert!("eui.+1+2+3+4+5+6+7+8".parse::<NamespaceId>().is_err(), "signs are no digits");
    }
}
