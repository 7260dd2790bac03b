//! Whom we believe to be the provisioner.
//!
//! A provisioner decides which disk an array is rebuilt on, so whoever can pose as one can lead
//! every copy to a place of his own. Its certificate is therefore always judged: by an authority,
//! by a pin, or by both. Not judging it is possible, takes two settings, and is said aloud every
//! hour.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heal_types::InvalidText;
use ring::digest::{SHA256, digest};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::secret::{Secret, SecretError};

/// Where the distribution keeps the authorities it believes.
const SYSTEM_AUTHORITIES: [&str; 2] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// How a server's certificate is judged, and which one we show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// Authorities, PEM. None: those of the distribution, unless there are pins.
    pub authorities: Option<PathBuf>,
    /// The server's key or certificate must be one of these. Without `authorities` this alone
    /// decides, which suits an appliance that signs its certificate itself.
    pub pins: Vec<Pin>,
    /// Our certificate and its key, in one PEM file.
    pub identity: Option<PathBuf>,
    /// Believe anybody. The caller asks for it in two places.
    pub believe_anybody: bool,
}

/// The SHA-256 of a certificate, or of its public key (`SubjectPublicKeyInfo`), in hexadecimal
/// digits with or without colons, as `openssl x509 -fingerprint -sha256` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl std::str::FromStr for Pin {
    type Err = InvalidText;
    fn from_str(text: &str) -> Result<Self, InvalidText> {
        let bad = |why| InvalidText::new("certificate pin", text, why);
        let trimmed = text.trim();
        let digits = trimmed.strip_prefix("sha256:").unwrap_or(trimmed).replace(':', "");
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(bad("it is not 64 hexadecimal digits, the SHA-256"));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad("it is not hexadecimal"))?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad("it is not hexadecimal"))?;
        }
        Ok(Self(bytes))
    }
}

/// Why no connection can be made safe.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] SecretError),
    /// A file has nothing of use in it.
    #[error("{} has no {what} in PEM form that can be used", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Neither authorities nor pins.
    #[error("there is nothing to judge a server by: no ca_file, no pin, and no system authorities")]
    Nothing,
    /// The library does not take what the files have.
    #[error("the certificates cannot be used")]
    Rustls(#[source] rustls::Error),
}

/// Makes the TLS side of a client. Reads files.
pub(crate) fn client_config(options: &TlsOptions) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(provider::default_provider());
    let verifier = Arc::new(judge(options, &provider)?);
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Rustls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &options.identity {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (chain, key) = identity(path)?;
            builder.with_client_auth_cert(chain, key).map_err(TrustError::Rustls)?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn judge(options: &TlsOptions, provider: &Arc<CryptoProvider>) -> Result<Judge, TrustError> {
    let pins = options.pins.clone();
    if options.believe_anybody {
        return Ok(Judge { authorities: None, pins: Vec::new(), provider: Arc::clone(provider) });
    }
    let authorities = match &options.authorities {
        Some(path) => Some(roots(path)?),
        None if pins.is_empty() => Some(
            SYSTEM_AUTHORITIES
                .iter()
                .find_map(|path| roots(Path::new(path)).ok())
                .ok_or(TrustError::Nothing)?,
        ),
        None => None,
    };
    let authorities = authorities
        .map(|roots| {
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|_| TrustError::Nothing)
        })
        .transpose()?;
    Ok(Judge { authorities, pins, provider: Arc::clone(provider) })
}

/// Authorities are no secret; the bounded reader serves all the same, but a system's bundle is
/// larger than any secret.
fn roots(path: &Path) -> Result<RootCertStore, TrustError> {
    let empty = || TrustError::Empty { path: path.to_owned(), what: "certificate" };
    let mut store = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|_| empty())?;
    store.add_parsable_certificates(found.filter_map(Result::ok).take(4096));
    if store.is_empty() { Err(empty()) } else { Ok(store) }
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(path: &Path) -> Result<Identity, TrustError> {
    let pem = Secret::read_file(path)?;
    let empty = |what| TrustError::Empty { path: path.to_owned(), what };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(pem.expose()).filter_map(Result::ok).take(16).collect();
    if chain.is_empty() {
        return Err(empty("certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| empty("private key"))?;
    Ok((chain, key))
}

/// Decides on a server's certificate. Without authorities and pins it believes anybody; such a
/// judge is made only when that was asked for.
struct Judge {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    pins: Vec<Pin>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("authorities", &self.authorities.is_some())
            .field("pins", &self.pins.len())
            .finish()
    }
}

impl Judge {
    fn is_pinned(&self, certificate: &CertificateDer<'_>) -> bool {
        let sha256 = |bytes: &[u8]| -> Option<Pin> {
            digest(&SHA256, bytes).as_ref().try_into().ok().map(Pin)
        };
        let whole = sha256(certificate);
        let key = webpki::EndEntityCert::try_from(certificate)
            .ok()
            .and_then(|parsed| sha256(&parsed.subject_public_key_info()));
        self.pins.iter().any(|pin| whole == Some(*pin) || key == Some(*pin))
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.pins.is_empty() && !self.is_pinned(end_entity) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        match &self.authorities {
            None => Ok(ServerCertVerified::assertion()),
            Some(authorities) => authorities.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_openssl_prints_it() {
        let colons = ["AB"; 32].join(":");
        let plain = "ab".repeat(32);
        assert_eq!(colons.parse::<Pin>().unwrap(), plain.parse().unwrap());
        assert_eq!(format!("sha256:{plain}").parse::<Pin>().unwrap(), plain.parse().unwrap());
        for text in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert!(text.parse::<Pin>().is_err(), "{text}");
        }
    }
}
