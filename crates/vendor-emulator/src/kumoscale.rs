//! A KumoScale provisioner, as its clients reveal it.
//!
//! | oddity | here |
//! |---|---|
//! | nearly every answer has status 200; `status` and `description` say how it went | always |
//! | lists are arrays at the top, also for one thing | always |
//! | "not authorised" is Tomcat's error page with status 200 | [`Options::page_for_401`], else status 401 |
//! | a missing replica may be on no backend (`persistentID` is empty) | [`Options::missing_is_nowhere`] |
//! | targets have two shapes, by version | [`Options::targets`] |
//! | what state a replica is made in is not known | [`Options::made`] |
//! | whether `numReplicas` counts an added replica is not known | [`Options::counts_added`] |
//! | fields that no client reads | always some |
//!
//! Replicas are made and deleted through [`Replicas`]: nothing in memory, a real target in a lab.

mod answers;
mod model;
mod stage;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use crate::server::{Answer, Heard, Service};
pub use model::{Backend, Model, Portal, Replica, Volume};
pub use stage::Stage;

/// Makes what a replica is made of.
#[async_trait]
pub trait Replicas: Send + Sync + fmt::Debug {
    /// Makes a namespace of that UUID on that backend, so that it can be connected to.
    async fn make(&self, replica: &Replica, backend: &Backend, capacity: u64)
    -> Result<(), String>;

    /// Takes it away.
    async fn delete(&self, replica: &Replica) -> Result<(), String>;
}

/// Replicas that exist in the answers only.
#[derive(Debug, Clone, Copy)]
pub struct OnPaper;

#[async_trait]
impl Replicas for OnPaper {
    async fn make(&self, _: &Replica, _: &Backend, _: u64) -> Result<(), String> {
        Ok(())
    }

    async fn delete(&self, _: &Replica) -> Result<(), String> {
        Ok(())
    }
}

/// The shape of a target in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Targets {
    /// One for each host: `name`, `numNamespaces`.
    PerHost,
    /// One for each backend: `targetName`, `backend.persistentID`.
    PerBackend,
}

/// Who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Open,
    /// Whoever has this token.
    Token(String),
    /// Whoever has a token from `POST /oauth/token`, for this long.
    ClientCredentials {
        /// Who may have one.
        client_id: String,
        /// With what.
        client_secret: String,
        /// How long one is good for.
        life: Duration,
    },
}

/// What differs between installations, or is not known of the real thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The shape of targets.
    pub targets: Targets,
    /// Who may call.
    pub access: Access,
    /// "Not authorised" as an error page with status 200.
    pub page_for_401: bool,
    /// A missing replica is on no backend.
    pub missing_is_nowhere: bool,
    /// The state a replica is made in.
    pub made: String,
    /// Whether `numReplicas` counts an added replica.
    pub counts_added: bool,
    /// The most replicas a volume may have.
    pub max_replicas: usize,
    /// Whether the room of a deleted replica can be used again although it was written to.
    pub reclaim: bool,
    /// Answers to `POST /replica` come before the replica is listed: it is after this many looks.
    pub listed_after: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            targets: Targets::PerHost,
            access: Access::Open,
            page_for_401: false,
            missing_is_nowhere: false,
            made: "Synchronizing".to_owned(),
            counts_added: false,
            max_replicas: 4,
            reclaim: true,
            listed_after: 0,
        }
    }
}

/// A token that was given out.
#[derive(Debug)]
struct Issued {
    token: String,
    until: Instant,
}

/// The provisioner.
#[derive(Debug)]
pub struct KumoScale {
    options: Mutex<Options>,
    model: Mutex<Model>,
    issued: Mutex<(u64, Vec<Issued>)>,
    replicas: Arc<dyn Replicas>,
    /// Changes are made one after the other, as a real target is made meanwhile.
    turn: tokio::sync::Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KumoScale {
    /// A provisioner of `model`.
    #[must_use]
    pub fn new(options: Options, model: Model, replicas: Arc<dyn Replicas>) -> Self {
        Self {
            options: Mutex::new(options),
            model: Mutex::new(model),
            issued: Mutex::default(),
            replicas,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// What it has now.
    #[must_use]
    pub fn model(&self) -> Model {
        lock(&self.model).clone()
    }

    /// Changes what it has, as somebody else would.
    pub fn change(&self, change: impl FnOnce(&mut Model)) {
        change(&mut lock(&self.model));
    }

    /// Changes how it is set up.
    pub fn set_up(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.options));
    }

    /// No token that was given out so far is good any longer.
    pub fn revoke(&self) {
        lock(&self.issued).1.clear();
    }

    /// How many tokens were given out.
    #[must_use]
    pub fn issued(&self) -> u64 {
        lock(&self.issued).0
    }

    fn options(&self) -> Options {
        lock(&self.options).clone()
    }

    fn admits(&self, options: &Options, heard: &Heard) -> bool {
        let given = heard.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        match &options.access {
            Access::Open => true,
            Access::Token(token) => given == Some(token),
            Access::ClientCredentials { .. } => {
                let now = Instant::now();
                lock(&self.issued)
                    .1
                    .iter()
                    .any(|i| Some(i.token.as_str()) == given && now < i.until)
            }
        }
    }

    /// `POST /oauth/token`.
    fn token(&self, options: &Options, heard: &Heard) -> Answer {
        let Access::ClientCredentials { client_id, client_secret, life } = &options.access else {
            return Answer { status: 404, body: "{}".into() };
        };
        let form = String::from_utf8_lossy(&heard.body).into_owned();
        let has =
            |name: &str, value: &str| form.split('&').any(|pair| pair == format!("{name}={value}"));
        if !has("grant_type", "client_credentials")
            || !has("client_id", client_id)
            || !has("client_secret", client_secret)
        {
            return Answer { status: 401, body: r#"{"error":"invalid_client"}"#.into() };
        }
        let mut issued = lock(&self.issued);
        issued.0 += 1;
        let token = format!("emulated-token-{}", issued.0);
        issued.1.push(Issued { token: token.clone(), until: Instant::now() + *life });
        let answer = serde_json::json!({
            "access_token": token, "expires_in": life.as_secs(), "token_type": "Bearer",
        });
        Answer::ok(answer.to_string())
    }
}

#[async_trait]
impl Service for KumoScale {
    async fn answer(&self, heard: Heard) -> Answer {
        let options = self.options();
        let path = heard.path.split('?').next().unwrap_or_default().to_owned();
        if path == "/oauth/token" && heard.method == "POST" {
            return self.token(&options, &heard);
        }
        if path == "/emulator/stage" && heard.method == "POST" {
            return self.stage(&heard.body);
        }
        if !self.admits(&options, &heard) {
            return answers::unauthorised(options.page_for_401);
        }
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(answers::unquoted).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (heard.method.as_str(), &segments[..]) {
            ("GET", _) => self.look(&options, &segments, &heard.path),
            ("POST", ["replica", volume]) => self.add(&options, volume).await,
            ("DELETE", ["replica", volume, replica]) => {
                self.confirm(&options, volume, replica).await
            }
            (method, _) => self.change_model(&options, method, &segments, &heard.body),
        }
    }
}
