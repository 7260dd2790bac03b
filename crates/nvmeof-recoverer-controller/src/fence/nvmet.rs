//! The fence of a Linux target: `nvmet-fenced` on the target's own host, over TLS 1.3 with
//! certificates on both sides.
//!
//! A connection is made for each question, because a move asks a handful of them and a target may
//! be another machine by the next one.

use std::time::Duration;

use async_trait::async_trait;
use heal_types::fence::{Question, Told};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;

use super::{Ask, Fence, answer, health, question, tls};
use crate::ceph::chain;
use crate::config::FenceTls;
use crate::crd;

/// How long an answer may take. A target that waits for a write on a dead disk takes longer, and is
/// asked again.
const DEADLINE: Duration = Duration::from_secs(20);
/// As much of an answer as is read.
const MOST: usize = 64 * 1024;

/// `nvmet-fenced` on one target.
#[derive(Debug, Clone)]
pub struct NvmetFence {
    at: crd::Nvmet,
    tls: Option<FenceTls>,
}

impl NvmetFence {
    /// The daemon at that place.
    #[must_use]
    pub fn new(at: crd::Nvmet, tls: Option<FenceTls>) -> Self {
        Self { at, tls }
    }

    async fn run(&self, question: &Question) -> Result<Told, String> {
        let asked = tokio::time::timeout(DEADLINE, self.exchange(question)).await;
        let late = || format!("the target's fence did not answer in {} s", DEADLINE.as_secs());
        asked.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, question: &Question) -> Result<Told, String> {
        let host = self.at.host.as_str();
        let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
            format!("{host}: {what}: {}", chain(error))
        };
        let tls = tls::connect(host, self.at.port, self.tls.as_ref(), &["http/1.1"]).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|error| failed("no connection", &error))?;
        let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
        let request = hyper::Request::post("/v1/fence")
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| failed("the question", &error))?;
        let asked = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| failed("no answer", &error))?;
            let body = Limited::new(response.into_body(), MOST).collect().await;
            Ok(body.map_err(|error| failed("half an answer", &*error))?.to_bytes())
        };
        tokio::pin!(asked);
        let body: Result<Bytes, String> = tokio::select! {
            body = &mut asked => body,
            // Its end is seen by whoever waits for the answer.
            _ = connection => asked.await,
        };
        serde_json::from_slice(&body?)
            .map_err(|error| failed("the answer is not understood", &error))
    }
}

#[async_trait]
impl Fence for NvmetFence {
    async fn health(&self) -> FenceHealth {
        let told = self.run(&Question::health()).await;
        if let Err(why) | Ok(Told::Again(why) | Told::Refused(why)) = &told {
            tracing::debug!(why, "a fence is not ready");
        }
        health(&told)
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        answer(self.run(&question(ask)).await)
    }
}
