//! What this program reads from outside, opened for `heal-fuzz` and for nobody else.

use heal_types::control::Request;

/// Reads a configuration; gives it back as this program would write it.
///
/// # Errors
/// What `--check-config` would say.
pub fn config(text: &str) -> Result<String, String> {
    let loaded = crate::config::parse(text, "nvme-heald.ron").map_err(|error| error.to_string())?;
    ron::to_string(&loaded.config).map_err(|error| error.to_string())
}

/// Reads one line of the control socket.
///
/// # Errors
/// What the client would be told.
pub fn request(line: &[u8]) -> Result<Request, String> {
    crate::control::parse(line)
}
