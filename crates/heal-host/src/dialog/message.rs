//! Netlink's bytes: messages, attributes, and the numbers in them.
//!
//! ```text
//!   ┌ nlmsghdr 16: length kind flags sequence port ┬ fixed part ┬ attribute ┬ attribute ┐
//!   └──────────────────────────────────────────────┴────────────┴───────────┴───────────┘
//! ```
//!
//! Every part is padded to four bytes. Every length is checked against what is there; what does not
//! fit is [`Malformed`] and ends the reading.

/// Bytes that are not of netlink's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;

/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER` stand in the attribute's kind.
const KIND: u16 = 0x3fff;

/// `NLM_F_REQUEST`.
const REQUEST: u16 = 0x1;

/// One message that was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

/// The messages of a datagram.
#[derive(Debug)]
pub(crate) struct Messages<'a>(&'a [u8]);

pub(crate) fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages(datagram)
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((message, rest)) = message(self.0) else {
            self.0 = &[];
            return Some(Err(Malformed));
        };
        self.0 = rest;
        Some(Ok(message))
    }
}

fn message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        port: u32_at(bytes, 12)?,
        body: bytes.get(HEADER..length)?,
    };
    let rest = bytes.get(length.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((message, rest))
}

/// The attributes of a message or of an attribute: kind and value.
#[derive(Debug)]
pub(crate) struct Attributes<'a>(&'a [u8]);

pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((kind, value, rest)) = attribute(self.0) else {
            self.0 = &[];
            return Some(Err(Malformed));
        };
        self.0 = rest;
        Some(Ok((kind, value)))
    }
}

fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16_at(bytes, 0)?);
    let kind = u16_at(bytes, 2)? & KIND;
    let value = bytes.get(ATTRIBUTE_HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, value, rest))
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// One message to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A request of `kind` with `flags` besides `NLM_F_REQUEST`, and its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | REQUEST).to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(fixed);
        let mut request = Self { bytes };
        request.pad();
        request
    }

    /// With one attribute more.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len())
            .expect("our attributes are addresses, names and small programs");
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.pad();
        self
    }

    /// As it is sent: with its length and its number.
    pub(crate) fn numbered(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let length = u32::try_from(bytes.len()).expect("a request is a few hundred bytes");
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        bytes
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
