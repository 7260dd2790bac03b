//! `/etc/kioxia/provisioner.conf`, as the vendor's own agent reads it, and without its traps.
//!
//! | trap | there | here |
//! |---|---|---|
//! | file absent | healing silently off | the caller is told, in one sentence |
//! | key or `[DEFAULT]` missing | the attach of the volume fails | an error that names it |
//! | token *and* client credentials | the attach fails | the credentials win, with a warning |
//! | some of the three OAuth keys | silently no authentication | the token if there is one, with a warning; else an error |
//! | a list in `prov_ip` | one strange host name | several addresses |
//! | quotes around a value | part of the value | an error that says so |
//! | `client_scope` set | the token server is not verified | it is verified all the same |
//!
//! The rest is Python's `RawConfigParser`: names without case, `=` or `:`, whole lines of `#` or
//! `;`.

use std::io;
use std::path::{Path, PathBuf};

use heal_types::InvalidText;

use crate::client::{CredentialOptions, Endpoint, Secret, SecretError, SecretSource};

/// Where the vendor's agent looks.
pub const CONF: &str = "/etc/kioxia/provisioner.conf";

/// What the file says. Secrets stay in it and are read when they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KioxiaConf {
    /// The management addresses.
    pub endpoints: Vec<Endpoint>,
    /// Our certificate and key, one PEM file.
    pub identity: PathBuf,
    /// The token, or where to get one.
    pub credentials: CredentialOptions,
    /// What is odd and was decided all the same.
    pub warnings: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] SecretError),
    /// There is no section.
    #[error("{} has no [DEFAULT] section", path.display())]
    NoSection {
        /// The file.
        path: PathBuf,
    },
    /// A key is missing, or empty.
    #[error("{} has no value for {key}, which is needed{why}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// With what it is needed.
        why: &'static str,
    },
    /// A value stands in quotes.
    #[error("{}: the value of {key} stands in quotes, which would be part of it", path.display())]
    Quoted {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A value is no address or port.
    #[error("{}: {key}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong with it.
        #[source]
        source: InvalidText,
    },
}

/// Reads the file; `None` if there is none.
///
/// # Errors
/// When it is there and cannot be used. The caller says so and goes on without a provisioner: it
/// must never be what keeps a volume from being attached.
pub fn read(path: &Path) -> Result<Option<KioxiaConf>, ConfError> {
    match Secret::read_file(path) {
        Ok(text) => parse(text.expose(), path).map(Some),
        Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

pub(super) fn parse(text: &[u8], path: &Path) -> Result<KioxiaConf, ConfError> {
    if !has_section(text) {
        return Err(ConfError::NoSection { path: path.to_owned() });
    }
    let conf = Values { text, path };
    let addresses = conf.text("prov_ip", "")?;
    let port_text = conf.text("prov_port", "")?;
    let invalid = |key, source| ConfError::Value { path: path.to_owned(), key, source };
    let port = match port_text.parse::<u16>() {
        Ok(port) if port > 0 => port,
        Ok(_) | Err(_) => {
            let why = "it is not a number from 1 to 65535";
            return Err(invalid("prov_port", InvalidText::new("port", &port_text, why)));
        }
    };
    let endpoints = addresses
        .split([',', ' ', '\t', '\n'])
        .filter(|address| !address.is_empty())
        .map(|address| Endpoint::parse(&bracketed(address), port))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| invalid("prov_ip", source))?;
    if endpoints.is_empty() {
        let why = "there is no address in it";
        return Err(invalid("prov_ip", InvalidText::new("address", &addresses, why)));
    }
    let identity = PathBuf::from(conf.text("cert_file", "")?);
    let mut warnings = Vec::new();
    let credentials = conf.credentials(&mut warnings)?;
    Ok(KioxiaConf { endpoints, identity, credentials, warnings })
}

/// An IPv6 address needs brackets before a port can follow it; the file has none.
fn bracketed(address: &str) -> String {
    match address.parse::<std::net::Ipv6Addr>() {
        Ok(_) => format!("[{address}]"),
        Err(_) => address.to_owned(),
    }
}

struct Values<'a> {
    text: &'a [u8],
    path: &'a Path,
}

impl Values<'_> {
    fn text(&self, key: &'static str, why: &'static str) -> Result<String, ConfError> {
        let path = || self.path.to_owned();
        let value =
            value(self.text, key).ok_or_else(|| ConfError::NoKey { path: path(), key, why })?;
        let value = String::from_utf8_lossy(value.expose()).into_owned();
        if value.starts_with(['"', '\'']) {
            return Err(ConfError::Quoted { path: path(), key });
        }
        Ok(value)
    }

    fn has(&self, key: &str) -> bool {
        value(self.text, key).is_some()
    }

    fn source(&self, key: &'static str) -> SecretSource {
        SecretSource::ConfKey { path: self.path.to_owned(), key }
    }

    fn credentials(&self, warnings: &mut Vec<String>) -> Result<CredentialOptions, ConfError> {
        const OAUTH: [&str; 3] = ["client_id", "client_secret", "token_url"];
        let name = self.path.display();
        let token = self.has("token");
        let missing = OAUTH.iter().find(|key| !self.has(key)).copied();
        let some = OAUTH.iter().any(|key| self.has(key));
        match (token, missing) {
            (_, None) => {
                if token {
                    warnings.push(format!(
                        "{name} has a token and client credentials: the credentials are used, because \
                         a token of theirs can be renewed"
                    ));
                }
                let token_url = self.text("token_url", "")?;
                let token_url = Endpoint::parse(&token_url, 443).map_err(|source| {
                    ConfError::Value { path: self.path.to_owned(), key: "token_url", source }
                })?;
                let scope = self.has("client_scope").then(|| self.text("client_scope", ""));
                Ok(CredentialOptions::ClientCredentials {
                    token_url,
                    client_id: self.source("client_id"),
                    client_secret: self.source("client_secret"),
                    scope: scope.transpose()?,
                })
            }
            (true, Some(missing)) => {
                if some {
                    warnings.push(format!(
                        "{name} has client credentials without {missing}: its token is used instead"
                    ));
                }
                Ok(CredentialOptions::Bearer(self.source("token")))
            }
            (false, Some(key)) if some => Err(ConfError::NoKey {
                path: self.path.to_owned(),
                key,
                why: " with the other client credentials",
            }),
            (false, Some(_)) => {
                warnings.push(format!(
                    "{name} has neither a token nor client credentials: calls go without a token"
                ));
                Ok(CredentialOptions::None)
            }
        }
    }
}

fn has_section(text: &[u8]) -> bool {
    lines(text).any(|(section, _)| section)
}

/// The value of `key` in the `[DEFAULT]` section; none if it is empty.
pub(crate) fn value(text: &[u8], key: &str) -> Option<Secret> {
    let mut found = None;
    for (in_default, line) in lines(text) {
        if !in_default || line.first().is_none_or(u8::is_ascii_whitespace) {
            continue;
        }
        let Some(at) = line.iter().position(|byte| matches!(byte, b'=' | b':')) else { continue };
        let (name, value) = line.split_at(at);
        if name.trim_ascii().eq_ignore_ascii_case(key.as_bytes()) {
            let value = value[1..].trim_ascii();
            found = (!value.is_empty()).then(|| Secret::new(value.to_vec()));
        }
    }
    found
}

/// Each line that is no comment, and whether it stands in `[DEFAULT]`.
fn lines(text: &[u8]) -> impl Iterator<Item = (bool, &[u8])> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut in_default = false;
    text.split(|byte| *byte == b'\n').filter_map(move |line| {
        let trimmed = line.trim_ascii();
        if matches!(trimmed.first(), Some(b'#' | b';')) {
            return None;
        }
        if trimmed.first() == Some(&b'[') && trimmed.last() == Some(&b']') {
            in_default = trimmed == b"[DEFAULT]";
        }
        Some((in_default, line.strip_suffix(b"\r").unwrap_or(line)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "[DEFAULT]\nprov_ip = 10.0.0.1\nprov_port=30100\n\
                         cert_file: /etc/kioxia/ssdtoolbox.pem\n";

    fn parsed(text: &str) -> Result<KioxiaConf, ConfError> {
        parse(text.as_bytes(), Path::new(CONF))
    }

    fn error(text: &str) -> String {
        crate::store::chain(&parsed(text).unwrap_err())
    }

    #[test]
    fn the_file_of_the_vendors_agent_is_read_unchanged() {
        let conf = parsed(&format!("# ours\n{WHOLE}; old\nToken = abc=def:ghi \n")).unwrap();
        assert_eq!(conf.endpoints, [Endpoint::parse("10.0.0.1:30100", 0).unwrap()]);
        assert_eq!(conf.identity, Path::new("/etc/kioxia/ssdtoolbox.pem"));
        let token = SecretSource::ConfKey { path: CONF.into(), key: "token" };
        assert_eq!(conf.credentials, CredentialOptions::Bearer(token));
        assert_eq!(conf.warnings, [""; 0]);
        let read = value(format!("{WHOLE}Token = abc=def:ghi \n").as_bytes(), "token").unwrap();
        assert_eq!(read.expose(), b"abc=def:ghi");
    }

    #[test]
    fn what_is_missing_is_named() {
        assert_eq!(error("prov_ip=10.0.0.1\n"), format!("{CONF} has no [DEFAULT] section"));
        assert_eq!(error("# python\nprov_ip = '10.0.0.1'\n"), error(""));
        for key in ["prov_ip", "prov_port", "cert_file"] {
            let text: String =
                WHOLE.split_inclusive('\n').filter(|line| !line.starts_with(key)).collect();
            assert_eq!(error(&text), format!("{CONF} has no value for {key}, which is needed"));
        }
    }

    #[test]
    fn a_token_and_client_credentials_together_are_no_crash() {
        let text =
            format!("{WHOLE}token=t\nclient_id=i\nclient_secret=s\ntoken_url=https://a/token\n");
        let conf = parsed(&text).unwrap();
        assert!(matches!(conf.credentials, CredentialOptions::ClientCredentials { .. }));
        assert!(conf.warnings[0].contains("a token and client credentials"), "{conf:?}");
    }

    #[test]
    fn half_of_the_client_credentials_are_named() {
        let half = format!("{WHOLE}client_id=i\ntoken_url=https://a/token\n");
        assert!(error(&half).contains("client_secret"), "{}", error(&half));
        let conf = parsed(&format!("{half}token=t\n")).unwrap();
        assert!(matches!(conf.credentials, CredentialOptions::Bearer(_)));
        assert!(conf.warnings[0].contains("client_secret"), "{conf:?}");
    }

    #[test]
    fn several_addresses_are_several() {
        let text = WHOLE.replace("10.0.0.1", "10.0.0.1, 10.0.0.2,fd00::3");
        let shown: Vec<_> =
            parsed(&text).unwrap().endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["https://10.0.0.1:30100", "https://10.0.0.2:30100", "https://[fd00::3]:30100"]
        );
    }

    #[test]
    fn a_value_that_cannot_be_meant_is_named() {
        assert!(error(&WHOLE.replace("30100", "https")).contains("prov_port: "));
        assert!(error(&WHOLE.replace("10.0.0.1", "\"10.0.0.1\"")).contains("quotes"));
        assert!(error(&WHOLE.replace("10.0.0.1", ",")).contains("prov_ip: "));
        let url = format!("{WHOLE}client_id=i\nclient_secret=s\ntoken_url=http://a/token\n");
        assert!(error(&url).contains("token_url: "), "{}", error(&url));
    }

    #[test]
    fn no_error_repeats_a_secret() {
        let text = format!("{WHOLE}client_id=i\nclient_secret=hunter2\ntoken_url=ftp://x\n");
        assert!(!error(&text).contains("hunter2"));
        assert!(
            !format!("{:?}", parsed(&format!("{WHOLE}token=hunter2\n")).unwrap())
                .contains("hunter2")
        );
    }

    #[test]
    fn other_sections_and_other_files_are_not_ours() {
        let text = format!("[other]\ntoken=x\n{WHOLE}");
        assert_eq!(parsed(&text).unwrap().credentials, CredentialOptions::None);
        assert!(matches!(read(Path::new("/nonexistent/provisioner.conf")), Ok(None)));
        assert!(
            parsed("\u{feff}[DEFAULT]\r\nprov_ip=1.2.3.4\r\nprov_port=1\r\ncert_file=/x\r\n")
                .is_ok()
        );
    }
}
