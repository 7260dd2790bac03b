//! A scratch folder with certificates for both ends of a wire.

use std::path::{Path, PathBuf};

use nvmeof_recoverer_controller::config::FenceTls;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

pub(crate) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    /// Certificates of an authority, and of a server by that name.
    pub(crate) fn with_certificates(test: &str, server: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("fences-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        std::fs::write(dir.join("authority"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for (file, name) in [("server", server), ("client", "recoverer.example")] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(dir.join(file), certificate.pem()).unwrap();
            std::fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    /// The controller's end.
    pub(crate) fn tls(&self) -> FenceTls {
        FenceTls {
            authority: self.path("authority"),
            certificate: self.path("client"),
            key: self.path("client.key"),
        }
    }
}
