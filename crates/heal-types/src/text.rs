//! Text that came from outside, made safe once: bounded, printable, never an option.

use thiserror::Error;

/// Why a piece of text is not the value it was given for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is not a valid {what}: {why}")]
pub struct InvalidText {
    what: &'static str,
    /// What was given, cut to a length that can be logged.
    text: String,
    why: &'static str,
}

/// The longest piece of a refused text that an error repeats.
const SHOWN: usize = 80;

impl InvalidText {
    /// `text` is not a valid `what`, because `why`.
    #[must_use]
    pub fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(SHOWN).collect(), why }
    }

    /// The rule the text broke.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// Refuses text that is empty, longer than `max` bytes, starts like an option, or holds anything
/// outside `allowed`.
pub(crate) fn check(
    what: &'static str,
    text: &str,
    max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), InvalidText> {
    if text.is_empty() {
        return Err(InvalidText::new(what, text, "it is empty"));
    }
    if text.len() > max {
        return Err(InvalidText::new(what, text, "it is too long"));
    }
    if text.starts_with('-') {
        return Err(InvalidText::new(what, text, "it starts with a dash, like an option"));
    }
    if !text.chars().all(allowed) {
        return Err(InvalidText::new(what, text, "it holds a character that is not allowed"));
    }
    Ok(())
}

/// A number as the kernel writes one: digits. `parse` takes a sign as well.
pub(crate) fn unsigned(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A newtype over checked text: parse, print, and serde through the same gate. A clone shares the
/// text: a look names the same devices again and again.
///
/// A fifth argument is one more rule, which says what is wrong with a text or nothing.
macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $allowed:expr) => {
        $crate::text::text_newtype! { $(#[$doc])* $name, $what, $max, $allowed, |_: &str| None }
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr, $allowed:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Takes `text` if it is valid.
            ///
            /// # Errors
            /// When it is empty, too long, starts with a dash, holds a character that is not
            /// allowed or breaks a rule of its own.
            pub fn new(text: impl Into<String>) -> Result<Self, $crate::InvalidText> {
                let text = text.into();
                $crate::text::check($what, &text, $max, $allowed)?;
                let rule: fn(&str) -> Option<&'static str> = $rule;
                match rule(&text) {
                    Some(why) => Err($crate::InvalidText::new($what, &text, why)),
                    None => Ok(Self(text.into())),
                }
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InvalidText;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::InvalidText;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0.as_ref().to_owned()
            }
        }
    };
}
pub(crate) use text_newtype;
