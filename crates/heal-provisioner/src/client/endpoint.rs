//! Where a provisioner is: `https://HOST:PORT/PREFIX`, or `HOST:PORT` for short.

use std::fmt;

use heal_types::InvalidText;
use hyper::Uri;
use rustls::pki_types::ServerName;

/// One management address. Always HTTPS: a token that travels in the clear is everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    host: String,
    port: u16,
    /// Without the slash at its end; empty for none.
    prefix: String,
}

impl Endpoint {
    /// Reads `text`; without a port it is `port`.
    ///
    /// # Errors
    /// When it is no such address. A list in one text is none: it would become a strange host name.
    pub fn parse(text: &str, port: u16) -> Result<Self, InvalidText> {
        let bad = |why| InvalidText::new("management address", text, why);
        let trimmed = text.trim();
        if trimmed.contains(',') {
            return Err(bad("it has a comma: give each address by itself"));
        }
        let uri = match trimmed.split_once("://") {
            Some(("https", _)) => trimmed.parse::<Uri>(),
            Some(_) => return Err(bad("it is not https")),
            None => format!("https://{trimmed}").parse::<Uri>(),
        };
        let uri = uri.map_err(|_| bad("it is not of the form https://HOST:PORT/PATH"))?;
        let authority = uri.authority().ok_or_else(|| bad("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("credentials belong into a file, not into an address"));
        }
        if uri.query().is_some() {
            return Err(bad("it has a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if ServerName::try_from(host.as_str()).is_err() {
            return Err(bad("its host is neither a name nor an address"));
        }
        let written = authority.as_str().strip_suffix(']').is_none()
            && authority.as_str().rsplit(']').next().is_some_and(|tail| tail.contains(':'));
        let port = match authority.port_u16() {
            Some(0) => return Err(bad("its port is zero")),
            Some(port) => port,
            None if written => return Err(bad("its port is not a number from 1 to 65535")),
            None => port,
        };
        Ok(Self { host, port, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The path of a request to `path` here.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// For the `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// What the server's certificate must be for.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.host.clone()).expect("checked when it was parsed")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.prefix)
    }
}

/// `text` as one segment of a path or one value of a query: whatever could end it is quoted.
#[must_use]
pub(crate) fn quoted(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    // A segment of dots alone would be walked, not named.
    if matches!(out.as_str(), "." | "..") { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_people_write_it() {
        for (text, shown) in [
            ("10.0.0.1", "https://10.0.0.1:8090"),
            ("10.0.0.1:30100", "https://10.0.0.1:30100"),
            ("https://prov.example/api/", "https://prov.example:8090/api"),
            ("[fd00::1]:8090", "https://[fd00::1]:8090"),
            ("https://[fd00::1]", "https://[fd00::1]:8090"),
        ] {
            assert_eq!(Endpoint::parse(text, 8090).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn an_address_that_leaves_a_doubt_is_refused() {
        for text in [
            "",
            "http://10.0.0.1",
            "10.0.0.1,10.0.0.2",
            "user:pass@host",
            "host:0",
            "host:70000",
            "host:",
            "https://host/x?y",
            "a b",
            "https://",
        ] {
            assert!(Endpoint::parse(text, 8090).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_quoted_cannot_leave_its_segment() {
        assert_eq!(quoted("a/b?c#d%e f\n"), "a%2Fb%3Fc%23d%25e%20f%0A");
        assert_eq!(quoted(".."), "%2E%2E");
        assert_eq!(quoted("db-1.x_~"), "db-1.x_~");
    }
}
