//! The one way out to the terminal.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command's one printer: what it prints is its answer"
)]

use std::io::{self, IsTerminal, Write};

use crate::render::Look;

/// Standard output, and what it can show.
#[derive(Debug)]
pub(crate) struct Printer {
    look: Look,
}

impl Printer {
    /// Standard output as it is: colours only on a terminal that wants them.
    pub(crate) fn stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            look: Look {
                width: width(terminal),
                colour: terminal && !set("NO_COLOR") && !dumb,
                dots: terminal && utf8_locale(),
                zone: jiff::tz::TimeZone::system(),
            },
        }
    }

    /// What the answer should look like.
    pub(crate) fn look(&self) -> &Look {
        &self.look
    }

    /// Prints `text` as it is.
    pub(crate) fn print(&self, text: &str) {
        // Whoever reads may have seen enough: a closed pipe is no failure.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }

    /// Says what went wrong.
    pub(crate) fn complain(&self, text: &str) {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Columns of the terminal. A file or a pipe has no width: whole lines are what a script wants.
fn width(terminal: bool) -> Option<usize> {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    match told {
        Some(columns) => Some(columns),
        None if terminal => {
            let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
            (size.ws_col > 0).then(|| usize::from(size.ws_col))
        }
        None => None,
    }
}

/// Whether the locale's characters are UTF-8. The first of these that is set counts (locale(7)).
fn utf8_locale() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(|name| std::env::var(name).ok())
        .find(|value| !value.is_empty())
        .is_some_and(|value| {
            let value = value.to_ascii_lowercase();
            value.ends_with("utf-8") || value.ends_with("utf8")
        })
}
