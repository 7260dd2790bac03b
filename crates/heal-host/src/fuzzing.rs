//! Parsers that are nobody's interface, opened for `heal-fuzz` and for nobody else.
//!
//! Only what has no other way in is here. A function of this module adds nothing to what it opens:
//! it turns our private types into plain ones, so that they may stay private.

use std::io;

use heal_types::{Content, MdSuperblock, Network};
use rustix::io::Errno;

use crate::dialog::message::attributes;
use crate::dialog::{Answer, Heard, hear};
use crate::helper::Report;
use crate::linux::content::{Signatures, merge};
use crate::sockdiag::{self, SocketId, TcpSocket};
use crate::superblock::{self, Trace};
use crate::{link, network};

/// Objects or attributes: kinds, with bodies or values.
pub type Pairs = Vec<(u16, Vec<u8>)>;

/// How the answer to a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There is more to come.
    NotYet,
    /// It is whole.
    Whole,
    /// It is whole, but changed while it was told.
    Torn,
    /// The kernel said no.
    Refused(Errno),
}

/// Reads one datagram of an answer: how it ended, and the objects in it, as kind and body.
///
/// # Errors
/// When it is not of netlink's form.
pub fn answer(datagram: &[u8], sequence: u32, port: u32) -> io::Result<(Ended, Pairs)> {
    let mut objects = Vec::new();
    let mut each = |kind: u16, body: &[u8]| {
        objects.push((kind, body.to_vec()));
        Ok(())
    };
    let mut heard = Heard::Whole;
    let ended = match hear(datagram, (sequence, port), &mut heard, &mut each)? {
        None => Ended::NotYet,
        Some(Answer::Told(Heard::Whole)) => Ended::Whole,
        Some(Answer::Told(Heard::Torn)) => Ended::Torn,
        Some(Answer::Refused(errno)) => Ended::Refused(errno),
    };
    Ok((ended, objects))
}

/// The attributes of a message: kinds and values. Nothing, if one of them does not fit.
#[must_use]
pub fn attributes_of(bytes: &[u8]) -> Option<Pairs> {
    let own = |(kind, value): (u16, &[u8])| (kind, value.to_vec());
    attributes(bytes).map(|found| found.ok().map(own)).collect()
}

/// One socket of `sock_diag`'s answer; nothing for what is none.
///
/// # Errors
/// When it is not of its form.
pub fn socket(kind: u16, body: &[u8]) -> io::Result<Option<TcpSocket>> {
    sockdiag::told(kind, body)
}

/// The question that would end the socket `id`, as it goes to the kernel.
#[must_use]
pub fn destruction(id: &SocketId) -> Vec<u8> {
    sockdiag::destruction(id)
}

/// The host's interfaces from the bodies of a list of links. Nothing, if one is not of its form.
#[must_use]
pub fn interfaces(bodies: &[Vec<u8>]) -> Option<Network> {
    let mut links = Vec::new();
    for body in bodies {
        links.extend(link::link(body).ok()?);
    }
    Some(network::network(links))
}

/// The interface a route leads out through. The outer nothing: it is not of its form.
#[must_use]
pub fn way_out(body: &[u8]) -> Option<Option<u32>> {
    network::way_out(body).ok()
}

/// Reads the MD superblock of version 1 that stands at `sector`.
///
/// # Errors
/// How it is damaged.
pub fn superblock(bytes: &[u8], sector: u64) -> Result<Option<MdSuperblock>, String> {
    superblock::parse(bytes, sector).map_err(|why| why.to_string())
}

/// What stands on a device by two witnesses: what stands at `sector`, and what `blkid` printed, the
/// second time blind to MD. Nothing, if `blkid` did not read the device.
#[must_use]
pub fn content(bytes: &[u8], sector: u64, blkid: &str, beside_md: Option<&str>) -> Option<Content> {
    let traces = match superblock::parse(bytes, sector) {
        Ok(Some(found)) => vec![Trace::V1(found)],
        Ok(None) if superblock::is_v090(bytes) => vec![Trace::V090],
        Ok(None) => Vec::new(),
        Err(why) => vec![Trace::Damaged(why)],
    };
    let all = Signatures::parse(blkid)?;
    let beside_md = match beside_md {
        Some(output) => Some(Signatures::parse(output)?),
        None => None,
    };
    Some(merge(&traces, &all, beside_md.as_ref()))
}

/// Reads what the helper prints about a device; gives it back as the helper would print it.
#[must_use]
pub fn report(line: &[u8]) -> Option<Vec<u8>> {
    let report: Report = serde_json::from_slice(line).ok()?;
    serde_json::to_vec(&report).ok()
}
