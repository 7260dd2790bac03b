//! What the API server shows, kept as small facts.
//!
//! ```text
//!   watch of one kind ─► read: the few fields we need, or nothing ─► Table ─► whoever looks
//! ```
//!
//! One task for each kind. A list that begins anew replaces the table at its end and not before, so
//! nobody ever looks at half of it; a watch that breaks is begun again, with growing pauses. An
//! object that cannot be read costs a warning, and none of the others.

use futures_util::{StreamExt as _, pin_mut};
use heal_types::Moment;
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

use crate::clock;

/// The rows of one kind, by `NAMESPACE/NAME` of their objects, or their name alone.
#[derive(Debug)]
pub(super) struct Table<V> {
    rows: Mutex<Rows<V>>,
}

#[derive(Debug)]
struct Rows<V> {
    /// Whether a list came to its end.
    complete: bool,
    rows: BTreeMap<String, V>,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { rows: Mutex::new(Rows { complete: false, rows: BTreeMap::new() }) }
    }
}

impl<V> Table<V> {
    /// Looks at all rows; `None` before they were all seen once.
    pub(super) fn look<R>(&self, look: impl FnOnce(&BTreeMap<String, V>) -> R) -> Option<R> {
        // Whoever panicked while holding it changed nothing by halves.
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        rows.complete.then(|| look(&rows.rows))
    }

    fn change<R>(&self, change: impl FnOnce(&mut Rows<V>) -> R) -> R {
        change(&mut self.rows.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Follows one kind for ever. `read` gets the row that was there, so that it can tell a change from
/// a repetition; nothing means that the object is none of ours.
pub(super) async fn follow<K, V>(
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    table: Arc<Table<V>>,
    changed: Arc<Notify>,
    read: impl Fn(&K, Option<&V>, Moment) -> Option<V>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
    DeserializeGuard<K>: Resource<DynamicType = K::DynamicType>,
    V: Clone,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listed: BTreeMap<String, V> = BTreeMap::new();
    let row = |object: DeserializeGuard<K>| {
        let name = key(&object);
        let object = match object.0 {
            Ok(object) => object,
            Err(error) => {
                tracing::warn!(kind, name, %error, "an object cannot be read, and is left out");
                return (name, None);
            }
        };
        let before = table.change(|rows| rows.rows.get(&name).cloned());
        let row = read(&object, before.as_ref(), clock::now().mono);
        (name, row)
    };
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                let (name, row) = row(object);
                listed.extend(row.map(|row| (name, row)));
            }
            Ok(Event::InitDone) => {
                let rows = std::mem::take(&mut listed);
                table.change(|table| *table = Rows { complete: true, rows });
                changed.notify_one();
            }
            Ok(Event::Apply(object)) => {
                let (name, row) = row(object);
                table.change(|table| match row {
                    Some(row) => table.rows.insert(name, row),
                    None => table.rows.remove(&name),
                });
                changed.notify_one();
            }
            Ok(Event::Delete(object)) => {
                let name = key(&object);
                table.change(|table| table.rows.remove(&name));
                changed.notify_one();
            }
            Err(error) => tracing::debug!(kind, %error, "the watch broke off, and begins again"),
        }
    }
}

fn key<K: Resource>(object: &K) -> String {
    let name = object.meta().name.as_deref().unwrap_or_default();
    match &object.meta().namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}
