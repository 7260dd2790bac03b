//! The protocol over HTTPS: what a vendor puts in front of anything.
//!
//! ```text
//!   POST {url}/v1/{verb}                      the question's document, key also in Idempotency-Key
//!   GET  {url}/v1/changes?since=…&wait_ms=…   answered when something changed, or after wait_ms
//! ```
//!
//! Status 200 goes with every document, faults included; any other status comes from something in
//! between and is judged as such: 401 and 403 are credentials, 408, 429 and 500 up are a
//! provisioner that is away, the rest is not this protocol. The interface is written down as an
//! OpenAPI 3.1 document, which ships with the package.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{FaultClass, ProvisionerFault};
use hyper::Method;
use serde::Deserialize;

use crate::CallContext;
use crate::client::{Client, ClientOptions, Reply, Request, quoted};
use crate::protocol::wire::PROTOCOL;
use crate::protocol::{Carrier, Document, MAX_DOCUMENT, Remote};
use crate::store::chain;

/// The port where nothing else is said.
pub const DEFAULT_PORT: u16 = 443;

/// The backend over HTTPS.
pub type Http = Remote<Https>;

/// Carries documents over HTTPS.
#[derive(Debug)]
pub struct Https {
    options: ClientOptions,
    made: Mutex<Option<Arc<Client>>>,
}

/// Makes the backend. Nobody is called, and no file is read, before the first call.
#[must_use]
pub fn backend(options: ClientOptions) -> Http {
    Remote::new(Https { options, made: Mutex::new(None) })
}

fn fault(class: FaultClass, detail: impl std::fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(class, detail)
}

fn refuses(reply: &Reply) -> bool {
    matches!(reply.status, 401 | 403)
}

fn body(reply: &Reply) -> Result<Vec<u8>, ProvisionerFault> {
    match reply.status {
        200 if reply.body.len() <= MAX_DOCUMENT => Ok(reply.body.to_vec()),
        200 => Err(fault(FaultClass::Invalid, "an answer of more than 1 MiB")),
        408 | 429 | 500.. => {
            let status = reply.status;
            Err(fault(FaultClass::Unreachable, format_args!("answered with status {status}")))
        }
        status => Err(fault(FaultClass::Invalid, format_args!("answered with status {status}"))),
    }
}

impl Https {
    /// Waits until something changed since `revision`, at most until the call's deadline. The
    /// answer is the revision now; the same one means that nothing did.
    ///
    /// # Errors
    /// As every call. A provisioner without this call answers with status 404, which is `Invalid`.
    pub async fn changed(
        &self,
        context: &CallContext,
        revision: Option<&str>,
    ) -> Result<String, ProvisionerFault> {
        #[derive(Deserialize)]
        struct Changes {
            protocol: u32,
            revision: String,
        }
        // Time for the answer to travel.
        let wait = context.remaining().saturating_sub(Duration::from_secs(2)).as_millis();
        let since = revision.map(|r| format!("since={}&", quoted(r))).unwrap_or_default();
        let request = Request {
            method: Method::GET,
            path: format!("/v1/changes?{since}wait_ms={wait}"),
            body: None,
            key: None,
            repeatable: true,
        };
        let body = body(&self.client().await?.call(context, &request).await?)?;
        let changes: Changes = serde_json::from_slice(&body)
            .map_err(|error| fault(FaultClass::Invalid, format_args!("changes: {error}")))?;
        if changes.protocol != PROTOCOL || changes.revision.len() > 256 {
            return Err(fault(FaultClass::Invalid, "changes of another protocol"));
        }
        Ok(changes.revision)
    }

    /// Made when it is first needed: its certificates may stand on a disk that comes late.
    async fn client(&self) -> Result<Arc<Client>, ProvisionerFault> {
        if let Some(client) = &*self.made.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Arc::clone(client));
        }
        let options = self.options.clone();
        let client = tokio::task::spawn_blocking(move || Client::new(options, refuses))
            .await
            .map_err(|_| fault(FaultClass::Unreachable, "the file access ended by itself"))?
            .map_err(|error| fault(FaultClass::Unreachable, chain(&error)))?;
        let client = Arc::new(client);
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&client));
        Ok(client)
    }
}

#[async_trait]
impl Carrier for Https {
    fn name(&self) -> &str {
        "http"
    }

    async fn carry(
        &self,
        context: &CallContext,
        document: Document,
    ) -> Result<Vec<u8>, ProvisionerFault> {
        let request = Request {
            method: Method::POST,
            path: format!("/v1/{}", document.verb),
            body: Some(document.body),
            key: document.key.map(String::from),
            // Every call of the protocol may be repeated: that is what keys are for.
            repeatable: true,
        };
        match self.client().await?.call(context, &request).await {
            Ok(reply) => body(&reply),
            Err(no) => {
                // Certificates may have been renewed since: the next call reads them again.
                if matches!(no.class, FaultClass::Unreachable | FaultClass::Unauthorized) {
                    *self.made.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                Err(no)
            }
        }
    }
}
