//! The token that goes with every call, and where the next one comes from.

use std::fmt;
use std::time::Duration;

use heal_types::{FaultClass, ProvisionerFault};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoint::quoted;
use super::secret::{Secret, SecretSource};
use super::{Endpoint, Sent, Wire, fault};
use crate::CallContext;

/// Refreshed this long before it expires, or when a tenth of its life is left if that is sooner.
const BEFORE_EXPIRY: Duration = Duration::from_secs(30);
/// No token is believed to be good for longer.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// What a client shows of itself beside its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum CredentialOptions {
    /// Nothing.
    #[default]
    None,
    /// A bearer token that somebody else renews.
    Bearer(SecretSource),
    /// OAuth2 client credentials (RFC 6749, section 4.4).
    ClientCredentials {
        /// Where tokens are given out.
        token_url: Endpoint,
        /// Who we are there.
        client_id: SecretSource,
        /// The proof of it.
        client_secret: SecretSource,
        /// What the token is to be good for.
        scope: Option<String>,
    },
}

/// A token in use.
#[derive(Clone)]
pub(super) struct Token {
    header: Secret,
    /// Which one it is: the holder of one that was not accepted says so by this number.
    number: u64,
    renew_at: Option<Instant>,
    expires: Option<Instant>,
}

impl Token {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The value of the `Authorization` header.
    pub(super) fn header(&self) -> &Secret {
        &self.header
    }
}

/// Holds the token and gets another when it is needed.
pub(super) struct Credentials {
    options: CredentialOptions,
    held: Mutex<Option<Token>>,
    /// The way to the token server.
    wire: Wire,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn new(options: CredentialOptions, wire: Wire) -> Self {
        Self { options, held: Mutex::new(None), wire }
    }

    /// The token to use; another one than number `refused`, which was not accepted.
    pub(super) async fn token(
        &self,
        context: &CallContext,
        refused: Option<u64>,
    ) -> Result<Option<Token>, ProvisionerFault> {
        if self.options == CredentialOptions::None {
            return Ok(None);
        }
        let mut held = self.held.lock().await;
        let now = Instant::now();
        let number = held.as_ref().map_or(0, |token| token.number) + 1;
        if let Some(token) = held.as_ref().filter(|token| Some(token.number) != refused) {
            if token.renew_at.is_none_or(|at| now < at) {
                return Ok(Some(token.clone()));
            }
            match self.another(context, number).await {
                Ok(fresh) => *held = Some(fresh),
                // The old one is good for a little longer.
                Err(_) if token.expires.is_some_and(|at| now < at) => {}
                Err(fault) => return Err(fault),
            }
        } else {
            *held = Some(self.another(context, number).await?);
        }
        Ok(held.clone())
    }

    async fn another(&self, context: &CallContext, number: u64) -> Result<Token, ProvisionerFault> {
        match &self.options {
            CredentialOptions::None => Err(fault(FaultClass::Unauthorized, "no credentials")),
            CredentialOptions::Bearer(source) => {
                let token = read(source).await?;
                Ok(Token { header: bearer(token.expose()), number, renew_at: None, expires: None })
            }
            CredentialOptions::ClientCredentials { token_url, client_id, client_secret, scope } => {
                let id = read(client_id).await?;
                let secret = read(client_secret).await?;
                let form = form(&id, &secret, scope.as_deref());
                self.exchange(context, token_url, form, number).await
            }
        }
    }

    async fn exchange(
        &self,
        context: &CallContext,
        token_url: &Endpoint,
        form: Secret,
        number: u64,
    ) -> Result<Token, ProvisionerFault> {
        let begun = Instant::now();
        let sent = Sent {
            method: hyper::Method::POST,
            path: String::new(),
            body: form.expose().to_vec().into(),
            headers: vec![("content-type", b"application/x-www-form-urlencoded".to_vec().into())],
        };
        let reply = self.wire.once(context, token_url, sent).await.map_err(|broken| {
            fault(FaultClass::Unreachable, format_args!("token server: {}", broken.why))
        })?;
        // What the server says of a refusal may repeat what we sent: it is not repeated further.
        let class = match reply.status {
            200 => return granted(&reply.body, number, begun),
            400 | 401 | 403 => FaultClass::Unauthorized,
            500.. | 429 => FaultClass::Unreachable,
            _ => FaultClass::Invalid,
        };
        Err(fault(class, format_args!("the token server answered with status {}", reply.status)))
    }
}

fn granted(body: &[u8], number: u64, begun: Instant) -> Result<Token, ProvisionerFault> {
    #[derive(Deserialize)]
    struct Granted {
        access_token: zeroize::Zeroizing<String>,
        expires_in: Option<f64>,
    }
    let invalid =
        |why: &str| fault(FaultClass::Invalid, format_args!("the token server's answer {why}"));
    let granted: Granted = serde_json::from_slice(body)
        .map_err(|_| invalid("is not JSON with access_token and expires_in"))?;
    let token = granted.access_token.as_bytes();
    if token.is_empty() || token.iter().any(|byte| !byte.is_ascii_graphic()) {
        return Err(invalid("has a token that cannot be sent"));
    }
    let life = match granted.expires_in {
        None => None,
        Some(seconds) => Some(
            Duration::try_from_secs_f64(seconds)
                .map_err(|_| invalid("has an impossible expires_in"))?
                .min(LONGEST_LIFE),
        ),
    };
    Ok(Token {
        header: bearer(token),
        number,
        renew_at: life.map(|life| begun + (life - (life / 10).min(BEFORE_EXPIRY))),
        expires: life.map(|life| begun + life),
    })
}

fn bearer(token: &[u8]) -> Secret {
    let mut header = Vec::with_capacity(token.len() + 7);
    header.extend_from_slice(b"Bearer ");
    header.extend_from_slice(token);
    Secret::new(header)
}

fn form(id: &Secret, secret: &Secret, scope: Option<&str>) -> Secret {
    let text = |secret: &Secret| quoted(&String::from_utf8_lossy(secret.expose()));
    let mut form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={}",
        text(id),
        text(secret)
    );
    if let Some(scope) = scope {
        form.push_str("&scope=");
        form.push_str(&quoted(scope));
    }
    Secret::new(form.into_bytes())
}

/// A file may be on a disk that hangs.
async fn read(source: &SecretSource) -> Result<Secret, ProvisionerFault> {
    let source = source.clone();
    tokio::task::spawn_blocking(move || source.read())
        .await
        .map_err(|_| fault(FaultClass::Unreachable, "the file access ended by itself"))?
        .map_err(|error| fault(FaultClass::Unauthorized, crate::store::chain(&error)))
}
