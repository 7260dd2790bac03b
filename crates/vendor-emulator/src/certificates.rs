//! Certificates, made on the spot: an authority, a server's and a client's.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A small public key infrastructure of its own.
#[derive(Debug)]
pub struct Certificates {
    /// The authority's certificate, PEM: what a client is to believe.
    pub authority_pem: String,
    /// The client's certificate and key in one PEM text.
    pub client_pem: String,
    /// The server's certificate, PEM.
    pub server_pem: String,
    /// The server's key, PEM.
    pub server_key_pem: String,
    /// The SHA-256 of the server's certificate, hexadecimal.
    pub server_pin: String,
    /// The SHA-256 of the server's public key, hexadecimal.
    pub server_key_pin: String,
    pub(crate) authority: CertificateDer<'static>,
    server: CertificateDer<'static>,
    server_key: Vec<u8>,
}

impl Certificates {
    /// An authority, and a server's certificate for `names`.
    ///
    /// # Errors
    /// When the library cannot make them, for example because a name is none.
    pub fn make(names: &[&str]) -> Result<Self, rcgen::Error> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "emulated authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = params.self_signed(&authority_key)?;
        let issuer = Issuer::new(params, authority_key);

        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (server, server_key) =
            signed(&issuer, names, "emulated provisioner", ExtendedKeyUsagePurpose::ServerAuth)?;
        let client_names = vec!["client.example".to_owned()];
        let (client, client_key) =
            signed(&issuer, client_names, "emulated client", ExtendedKeyUsagePurpose::ClientAuth)?;
        Ok(Self {
            authority_pem: authority.pem(),
            client_pem: format!("{}{}", client_key.serialize_pem(), client.pem()),
            server_pem: server.pem(),
            server_key_pem: server_key.serialize_pem(),
            server_pin: sha256(server.der()),
            server_key_pin: sha256(&server_key.public_key_info()),
            authority: authority.der().clone(),
            server: server.der().clone(),
            server_key: server_key.serialize_der(),
        })
    }

    pub(crate) fn server(&self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.server_key.clone());
        (self.server.clone(), key.into())
    }
}

trait PublicKeyInfo {
    fn public_key_info(&self) -> Vec<u8>;
}

impl PublicKeyInfo for KeyPair {
    fn public_key_info(&self) -> Vec<u8> {
        rcgen::PublicKeyData::subject_public_key_info(self)
    }
}

fn signed(
    issuer: &Issuer<'_, KeyPair>,
    names: Vec<String>,
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate, key))
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
