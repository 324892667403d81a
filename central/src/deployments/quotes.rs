//! What each gateway may quote of its manifests, read again only when a manifest was assigned or a gateway was deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use edge_core::redact::fragments;
use edge_core::redact::quotes::{Quotable, Quotes};
use percent_encoding::percent_decode_str;
use rusqlite::Connection;
use schemas::names::DeviceId;
use serde_json::value::RawValue;

use crate::store::{Store, StoreError, manifest_quotes, manifests};

/// Hides in answers what gateways quote of their manifests.
pub struct ManifestQuotes {
    store: Store,
    known: Arc<Mutex<Known>>,
}

impl ManifestQuotes {
    pub fn new(store: Store) -> Self {
        Self { store, known: Arc::default() }
    }

    /// What gateways may quote now.
    ///
    /// # Errors
    /// [`StoreError`]: without it nothing may be shown.
    pub async fn now(&self) -> Result<Arc<GatewayQuotes>, StoreError> {
        let known = self.known.clone();
        let read = move |c: &Connection| {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            Ok::<_, StoreError>(known.read(c)?)
        };
        self.store.read(read).await
    }
}

/// What each gateway may quote, by its id.
#[derive(Default)]
pub struct GatewayQuotes(HashMap<String, Vec<Arc<Quotable>>>);

impl GatewayQuotes {
    /// Of one gateway.
    pub fn of(&self, gateway: &str) -> Quotes {
        Quotes::new(self.0.get(gateway).cloned().unwrap_or_default())
    }

    /// Of the gateways that a request's path or a JSON text names. An id has nothing that JSON escapes.
    pub fn named_in(&self, path: &str, json: &str) -> Quotes {
        if self.0.is_empty() {
            return Quotes::default();
        }
        let mut named: Vec<&Arc<Quotable>> = Vec::new();
        let segments = path.split('/').map(|segment| percent_decode_str(segment).decode_utf8_lossy());
        for name in json.split('"').map(Into::into).chain(segments) {
            named.extend(self.0.get(&*name).into_iter().flatten());
        }
        // Gateways often have the same manifest.
        named.sort_by_key(|quotable| Arc::as_ptr(quotable));
        named.dedup_by_key(|quotable| Arc::as_ptr(quotable));
        Quotes::new(named.into_iter().cloned().collect())
    }
}

#[derive(Default)]
struct Known {
    /// `None` before the first reading.
    state: Option<(i64, i64)>,
    /// By the rows of the store.
    rows: HashMap<i64, Arc<Quotable>>,
    /// Of gateways whose manifest has no row yet.
    unnoted: HashMap<DeviceId, Arc<Quotable>>,
    gateways: Arc<GatewayQuotes>,
}

impl Known {
    fn read(&mut self, c: &Connection) -> rusqlite::Result<Arc<GatewayQuotes>> {
        let state = manifest_quotes::state(c)?;
        if self.state == Some(state) {
            return Ok(self.gateways.clone());
        }
        let mut distinct = HashMap::new();
        let mut share = |texts: BTreeSet<String>| -> Arc<Quotable> {
            let make = |texts: &BTreeSet<String>| Arc::new(Quotable::new(texts.iter().cloned()));
            distinct.entry(texts).or_insert_with_key(make).clone()
        };
        if self.state.is_none() {
            for gateway in manifest_quotes::missing(c)? {
                let manifest: Option<Box<RawValue>> = manifests::assigned(c, &gateway)?;
                let texts = manifest.map(|manifest| fragments(manifest.get())).unwrap_or_default();
                self.unnoted.insert(gateway, share(texts));
            }
        }
        let (mut rows, mut gateways) = (HashMap::new(), HashMap::<String, Vec<Arc<Quotable>>>::new());
        for (id, gateway) in manifest_quotes::rows(c)? {
            let quotable = match self.rows.get(&id) {
                Some(known) => known.clone(),
                None => share(manifest_quotes::texts(c, id)?),
            };
            self.unnoted.remove(&gateway);
            rows.insert(id, quotable.clone());
            gateways.entry(gateway.into()).or_default().push(quotable);
        }
        for (gateway, quotable) in &self.unnoted {
            gateways.insert(gateway.to_string(), vec![quotable.clone()]);
        }
        (self.rows, self.gateways, self.state) = (rows, Arc::new(GatewayQuotes(gateways)), Some(state));
        Ok(self.gateways.clone())
    }
}
