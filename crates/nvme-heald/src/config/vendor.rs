//! The options of the backends that talk to somebody: where, whom to believe, and who we are there.

use std::path::{Path, PathBuf};

use heal_provisioner::client::{
    ClientOptions, CredentialOptions, Endpoint, Pin, SecretSource, TlsOptions,
};
use heal_types::InvalidText;
use serde::{Deserialize, Serialize};

/// Whom to believe, and who we are. Secrets are files; only their paths stand here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Access {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) pins: Vec<String>,
    pub(crate) client_cert: Option<PathBuf>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) oauth: Option<OAuth>,
    /// One of two: alone it is refused.
    pub(crate) skip_verification: bool,
    /// The other.
    pub(crate) anybody_may_pose_as_the_provisioner: bool,
}

/// OAuth2 client credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OAuth {
    pub(crate) token_url: String,
    pub(crate) client_id_file: PathBuf,
    pub(crate) client_secret_file: PathBuf,
    #[serde(default)]
    pub(crate) scope: Option<String>,
}

impl Access {
    /// The client's options for `addresses`.
    pub(crate) fn client(
        &self,
        addresses: &[String],
        port: u16,
    ) -> Result<ClientOptions, InvalidText> {
        Ok(ClientOptions {
            endpoints: addresses
                .iter()
                .map(|address| Endpoint::parse(address, port))
                .collect::<Result<_, _>>()?,
            tls: self.tls()?,
            credentials: self.credentials()?,
        })
    }

    pub(crate) fn tls(&self) -> Result<TlsOptions, InvalidText> {
        Ok(TlsOptions {
            authorities: self.ca_file.clone(),
            pins: self.pins.iter().map(|pin| pin.parse()).collect::<Result<Vec<Pin>, _>>()?,
            identity: self.client_cert.clone(),
            believe_anybody: self.skip_verification && self.anybody_may_pose_as_the_provisioner,
        })
    }

    pub(crate) fn credentials(&self) -> Result<CredentialOptions, InvalidText> {
        let file = |path: &Path| SecretSource::File(path.to_owned());
        Ok(match (&self.oauth, &self.token_file) {
            (Some(oauth), _) => CredentialOptions::ClientCredentials {
                token_url: Endpoint::parse(&oauth.token_url, 443)?,
                client_id: file(&oauth.client_id_file),
                client_secret: file(&oauth.client_secret_file),
                scope: oauth.scope.clone(),
            },
            (None, Some(token)) => CredentialOptions::Bearer(file(token)),
            (None, None) => CredentialOptions::None,
        })
    }

    /// What is wrong with these options, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = self.client(&[], 443) {
            problems.push(error.to_string());
        }
        if self.oauth.is_some() && self.token_file.is_some() {
            problems.push("token_file and oauth: give one of them".to_owned());
        }
        if self.skip_verification != self.anybody_may_pose_as_the_provisioner {
            problems.push(
                "to talk to a server that is not verified, both skip_verification and \
                 anybody_may_pose_as_the_provisioner must be true"
                    .to_owned(),
            );
        }
        let files = [&self.ca_file, &self.client_cert, &self.token_file].into_iter().flatten();
        let secrets = self.oauth.iter().flat_map(|o| [&o.client_id_file, &o.client_secret_file]);
        for path in files.chain(secrets).filter(|path| !path.is_absolute()) {
            problems.push(format!("{} is not an absolute path", path.display()));
        }
        problems
    }
}
