//! The wire protocol of our own, for every vendor that has no backend here.
//!
//! One JSON document in, one out. The same documents travel over HTTPS ([`crate::http`]) and over
//! the standard input and output of a program ([`crate::exec`]); what carries them is a
//! [`Carrier`], and [`Remote`] is the backend on top of any of them.
//!
//! ```text
//!   {"protocol": 1, "verb": "request_replacement", "key": "…", "deadline_ms": 9000,
//!    "volume": "vol-7", "lost": "r1", "why": "…"}
//!                  │                                          ▲
//!                  ▼                                          │
//!        HTTPS POST …/v1/request_replacement        {"protocol": 1, "answer": {"granted": {…}}}
//!        or a child's stdin                         {"protocol": 1, "fault": {"class": "refused", …}}
//! ```
//!
//! There is no state on our side: keys are kept by the other one, as the trait's contract says. A
//! document that is not understood is `Invalid`, and nothing is concluded from it; fields that are
//! not known are passed over, so that either side may be newer.
//!
//! [`serve`] is the other end: it answers documents from any [`Provisioner`]. A vendor who writes
//! Rust needs nothing else, and the reference server is made of it.
//!
//! The price: one verb, one round trip. A provisioner that wants to say more says it in its own
//! log.

pub mod wire;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use heal_types::{
    CallKey, Condition, FaultClass, ProvisionerAnswer, ProvisionerCall, ProvisionerFault,
    Replacement, Volume, VolumeId, VolumeQuery, WallTime,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::contract::live::Stages;
use crate::contract::{KnownBy, Stage};
use crate::{
    CallContext, Capabilities, ForwardedEvent, HostInfo, Provisioner, ReplicaRef, Severity,
    dispatch,
};
use wire::{
    Answer, Call, ConditionWord, Described, Done, Fault, Found, KnownByWord, PROTOCOL, Question,
    Replaced, SeverityWord,
};

/// The largest document that is read.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// A question on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The verb, for the carrier's own use.
    pub verb: &'static str,
    /// The key, for the carrier's own use.
    pub key: Option<CallKey>,
    /// The document.
    pub body: Vec<u8>,
}

/// Takes a question to the provisioner and brings the answer back.
#[async_trait]
pub trait Carrier: Send + Sync + fmt::Debug {
    /// The backend's name.
    fn name(&self) -> &str;

    /// The answer's document. It is not larger than [`MAX_DOCUMENT`].
    async fn carry(
        &self,
        context: &CallContext,
        document: Document,
    ) -> Result<Vec<u8>, ProvisionerFault>;
}

/// The backend that speaks the protocol, however it is carried.
#[derive(Debug)]
pub struct Remote<C> {
    carrier: C,
    described: OnceLock<Capabilities>,
}

fn invalid(detail: impl fmt::Display) -> ProvisionerFault {
    ProvisionerFault::new(FaultClass::Invalid, detail)
}

impl<C: Carrier> Remote<C> {
    /// A backend over `carrier`.
    pub fn new(carrier: C) -> Self {
        Self { carrier, described: OnceLock::new() }
    }

    /// What carries the documents.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        context: &CallContext,
        call: Call,
        key: Option<&CallKey>,
    ) -> Result<T, ProvisionerFault> {
        let verb = call.verb();
        let deadline_ms = wire::millis(context.remaining());
        let question = Question { protocol: PROTOCOL, deadline_ms, key: key.cloned(), call };
        let body = serde_json::to_vec(&question).map_err(invalid)?;
        let document = Document { verb, key: key.cloned(), body };
        let answer = self.carrier.carry(context, document).await?;
        understand(verb, &answer)
    }
}

/// The answer in a document.
fn understand<T: DeserializeOwned>(verb: &str, document: &[u8]) -> Result<T, ProvisionerFault> {
    if document.len() > MAX_DOCUMENT {
        return Err(invalid(format_args!("an answer of more than {MAX_DOCUMENT} bytes")));
    }
    let answer: Answer<T> = serde_json::from_slice(document).map_err(|error| {
        invalid(format_args!("the answer to {verb} is not understood: {error}"))
    })?;
    if answer.protocol != PROTOCOL {
        return Err(invalid(format_args!("an answer in protocol {}", answer.protocol)));
    }
    match (answer.answer, answer.fault) {
        (Some(answer), None) => Ok(answer),
        (None, Some(fault)) => Err(fault.into()),
        (Some(_), Some(_)) => Err(invalid("both an answer and a fault")),
        (None, None) => Err(invalid("neither an answer nor a fault")),
    }
}

#[async_trait]
impl<C: Carrier> Provisioner for Remote<C> {
    fn name(&self) -> &str {
        self.carrier.name()
    }

    /// Until the provisioner has said what it has: what every provisioner should have.
    fn capabilities(&self) -> Capabilities {
        let usual = Capabilities { replacement: true, publish: false, forward: false };
        self.described.get().copied().unwrap_or(usual)
    }

    async fn probe(&self, context: &CallContext, host: &HostInfo) -> Result<(), ProvisionerFault> {
        if self.described.get().is_none() {
            let described: Described = self.ask(context, Call::Describe, None).await?;
            let _ = self.described.set(described.capabilities());
        }
        self.ask::<Done>(context, Call::probe(host), None).await.map(|_| ())
    }

    async fn find_volume(
        &self,
        context: &CallContext,
        query: &VolumeQuery,
    ) -> Result<Option<Volume>, ProvisionerFault> {
        let call = Call::FindVolume { array: query.array, alias: query.alias.clone() };
        let found: Found = self.ask(context, call, None).await?;
        found.volume.map(Volume::try_from).transpose().map_err(invalid)
    }

    async fn report(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        condition: &Condition,
        since: WallTime,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let (condition, why) = ConditionWord::of(condition);
        let (volume, replica) = (replica.volume.clone(), replica.replica.clone());
        let call = Call::Report { volume, replica, condition, why, since_ms: since.0 };
        self.ask::<Done>(context, call, Some(key)).await.map(|_| ())
    }

    async fn request_replacement(
        &self,
        context: &CallContext,
        lost: ReplicaRef<'_>,
        why: &str,
        key: &CallKey,
    ) -> Result<Replacement, ProvisionerFault> {
        let (volume, lost) = (lost.volume.clone(), lost.replica.clone());
        // A document has a size; what people read fits in a few lines.
        let why = crate::text::printable(why, 500);
        let call = Call::RequestReplacement { volume, lost, why };
        let replaced: Replaced = self.ask(context, call, Some(key)).await?;
        replaced.try_into().map_err(invalid)
    }

    async fn confirm_removed(
        &self,
        context: &CallContext,
        replica: ReplicaRef<'_>,
        key: &CallKey,
    ) -> Result<(), ProvisionerFault> {
        let (volume, replica) = (replica.volume.clone(), replica.replica.clone());
        let call = Call::ConfirmRemoved { volume, replica };
        self.ask::<Done>(context, call, Some(key)).await.map(|_| ())
    }

    async fn publish(
        &self,
        context: &CallContext,
        volume: &VolumeId,
    ) -> Result<(), ProvisionerFault> {
        let call = Call::Publish { volume: volume.clone() };
        self.ask::<Done>(context, call, None).await.map(|_| ())
    }

    async fn forward(
        &self,
        context: &CallContext,
        event: &ForwardedEvent,
    ) -> Result<(), ProvisionerFault> {
        self.ask::<Done>(context, Call::forward(event), None).await.map(|_| ())
    }
}

#[async_trait]
impl<C: Carrier> Stages for Remote<C> {
    async fn stage(
        &self,
        context: &CallContext,
        stage: &Stage,
        query: &VolumeQuery,
    ) -> Result<(), ProvisionerFault> {
        let call = Call::Stage {
            array: query.array,
            alias: query.alias.clone(),
            known_by: match stage.known_by {
                KnownBy::Array => KnownByWord::Array,
                KnownBy::Alias => KnownByWord::Alias,
                KnownBy::Both => KnownByWord::Both,
            },
            replicas: stage.replicas,
            size: stage.size.bytes(),
            spares: stage.spares.iter().map(|size| size.bytes()).collect(),
        };
        self.ask::<Done>(context, call, None).await.map(|_| ())
    }
}

/// Answers one document from `provisioner`: the other end of the wire. Whatever comes in, a
/// document goes out.
pub async fn serve(provisioner: &dyn Provisioner, document: &[u8]) -> Vec<u8> {
    let answer = match question(document) {
        Err(fault) => write::<Done>(Err(fault)),
        Ok(question) => answer(provisioner, question).await,
    };
    answer.unwrap_or_else(|_| {
        br#"{"protocol":1,"fault":{"class":"invalid","detail":"the answer has no text"}}"#.to_vec()
    })
}

fn question(document: &[u8]) -> Result<Question, ProvisionerFault> {
    let question: Question = serde_json::from_slice(document)
        .map_err(|error| invalid(format_args!("the question is not understood: {error}")))?;
    if question.protocol != PROTOCOL {
        return Err(invalid(format_args!("a question in protocol {}", question.protocol)));
    }
    Ok(question)
}

type Written = Result<Vec<u8>, serde_json::Error>;

fn write<T: Serialize>(answer: Result<T, ProvisionerFault>) -> Written {
    let (answer, fault) = match answer {
        Ok(answer) => (Some(answer), None),
        Err(fault) => (None, Some(Fault::from(fault))),
    };
    serde_json::to_vec(&Answer { protocol: PROTOCOL, answer, fault })
}

async fn answer(provisioner: &dyn Provisioner, question: Question) -> Written {
    let limit = Duration::from_millis(question.deadline_ms);
    let context = CallContext::within(limit);
    let done = |answer: Result<(), ProvisionerFault>| write(answer.map(|()| Done {}));
    let key = question.key.ok_or_else(|| invalid("a call without its key"));
    let call = match question.call {
        Call::Describe => {
            let Capabilities { replacement, publish, forward } = provisioner.capabilities();
            let name = provisioner.name().to_owned();
            return write(Ok(Described { name, replacement, publish, forward }));
        }
        Call::Probe { host_nqn, host_id, host_name, version, next_within_ms, multipath } => {
            let host = HostInfo {
                nqn: host_nqn,
                id: host_id,
                name: host_name,
                version,
                next_within: Duration::from_millis(next_within_ms),
                multipath,
            };
            return done(provisioner.probe(&context, &host).await);
        }
        Call::Publish { volume } => return done(provisioner.publish(&context, &volume).await),
        Call::Forward { severity, at_ms, message, fields } => {
            let severity = match severity {
                SeverityWord::Info => Severity::Info,
                SeverityWord::Warning => Severity::Warning,
                SeverityWord::Fatal => Severity::Fatal,
            };
            let event = ForwardedEvent { severity, at: WallTime(at_ms), message, fields };
            return done(provisioner.forward(&context, &event).await);
        }
        Call::Stage { .. } => {
            let why = "no stages here: this is in earnest";
            return done(Err(ProvisionerFault::new(FaultClass::Unsupported, why)));
        }
        Call::FindVolume { array, alias } => {
            Ok(ProvisionerCall::FindVolume(VolumeQuery { array, alias }))
        }
        Call::Report { volume, replica, condition, why, since_ms } => {
            key.map(|key| ProvisionerCall::Report {
                volume,
                replica,
                condition: condition.condition(why),
                since: WallTime(since_ms),
                key,
            })
        }
        Call::RequestReplacement { volume, lost, why } => {
            key.map(|key| ProvisionerCall::RequestReplacement { volume, lost, why, key })
        }
        Call::ConfirmRemoved { volume, replica } => {
            key.map(|key| ProvisionerCall::ConfirmRemoved { volume, replica, key })
        }
    };
    let call = match call {
        Ok(call) => call,
        Err(fault) => return write::<Done>(Err(fault)),
    };
    match dispatch::call(provisioner, &call, limit).await {
        Ok(ProvisionerAnswer::Volume(volume)) => {
            write(Ok(Found { volume: volume.map(Into::into) }))
        }
        Ok(ProvisionerAnswer::Noted) => done(Ok(())),
        Ok(ProvisionerAnswer::Replacement(replacement)) => write(Ok(Replaced::from(replacement))),
        Err(fault) => write::<Done>(Err(fault)),
    }
}
