//! No fence but a person's word.

use async_trait::async_trait;
use nvmeof_recoverer::plan::relocate::Answer;
use nvmeof_recoverer::plan::view::FenceHealth;

use super::{Ask, Fence, Verb};

/// Refuses to fence, so that every move waits for a person in `FenceRequired`. Whom the target
/// admits, that person decides as well.
#[derive(Debug, Clone, Copy)]
pub struct Manual;

#[async_trait]
impl Fence for Manual {
    async fn health(&self) -> FenceHealth {
        FenceHealth::Missing
    }

    async fn ask(&self, ask: &Ask) -> Answer {
        match ask.verb {
            Verb::Close | Verb::Report => Answer::Refused("the target has no fence".to_owned()),
            Verb::Admit(_) => Answer::Done,
        }
    }
}
