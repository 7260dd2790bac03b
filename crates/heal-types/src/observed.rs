//! "No answer" is not "nothing there".

use std::fmt;

use serde::{Deserialize, Serialize};

/// A fact read from a host or a vendor, or the reason why it could not be read.
///
/// No destructive decision is ever taken from `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Observed<T> {
    /// It was read, and this is it.
    Known(T),
    /// It could not be read. What was true before may still be true.
    Unknown(UnknownWhy),
}

/// Why a fact is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnknownWhy {
    /// Nobody has looked yet.
    NotReadYet,
    /// The kernel has not filled the attribute yet; it is read again shortly.
    NotFilledYet,
    /// The attribute vanished while it was read.
    Vanished,
    /// Reading it failed.
    ReadFailed,
    /// It was read, but is not of the expected form.
    Malformed,
    /// Reading it now could hang, because the leg's controller is not live.
    WouldBlock,
    /// The one who knows did not answer.
    NoAnswer,
    /// The kernel has no such attribute.
    Unsupported,
}

impl fmt::Display for UnknownWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReadYet => "not read yet",
            Self::NotFilledYet => "not filled by the kernel yet",
            Self::Vanished => "vanished while it was read",
            Self::ReadFailed => "reading it failed",
            Self::Malformed => "malformed",
            Self::WouldBlock => "reading it could hang",
            Self::NoAnswer => "no answer",
            Self::Unsupported => "this kernel does not show it",
        })
    }
}

impl<T> Observed<T> {
    /// The fact, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Whether it is known *and* satisfies `test`. Unknown satisfies nothing.
    pub fn is_known_and(&self, test: impl FnOnce(&T) -> bool) -> bool {
        self.known().is_some_and(test)
    }

    /// The same fact, seen through `f`.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Observed<U> {
        match self {
            Self::Known(value) => Observed::Known(f(value)),
            Self::Unknown(why) => Observed::Unknown(why),
        }
    }

    /// The fact by reference.
    pub fn as_ref(&self) -> Observed<&T> {
        match self {
            Self::Known(value) => Observed::Known(value),
            Self::Unknown(why) => Observed::Unknown(*why),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Observed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown(why) => write!(f, "unknown ({why})"),
        }
    }
}
