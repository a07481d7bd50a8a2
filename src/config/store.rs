//! `store.*` and `durability`: where state is kept, and when something is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use super::resolve::Values;
use crate::limits;
use crate::runtime::StoreChoice;
use crate::store::Durability;

/// The value that means the data directory.
const EMBEDDED: &str = "embedded";

pub(super) fn resolve(values: &Values<'_>) -> Result<StoreChoice, Error> {
    let url = values.text("store.url")?;
    let outage = values.number("store.outage_seconds", 1, limits::STORE_OUTAGE_SECONDS_MAX)?;
    if url == EMBEDDED {
        let levels = [("fsync", Durability::Fsync), ("os", Durability::Os)];
        return values.one_of("durability", &levels).map(StoreChoice::Embedded);
    }
    redis(values, Duration::from_secs(outage))
}

#[cfg(not(feature = "redis"))]
fn redis(values: &Values<'_>, _: Duration) -> Result<StoreChoice, Error> {
    Err(values
        .bad("store.url", "\"embedded\" is expected; this binary was built without Redis (feature redis)"))
}

#[cfg(feature = "redis")]
fn redis(values: &Values<'_>, outage: Duration) -> Result<StoreChoice, Error> {
    use crate::runtime::Membership;
    use crate::store::redis::{Config, Level, SCHEMES, Tag, Tls};

    let urls: Vec<String> = values.entries("store.url")?.map(str::to_owned).collect();
    let is_known = |url: &String| SCHEMES.iter().any(|scheme| url.starts_with(scheme));
    if urls.is_empty() || !urls.iter().all(is_known) {
        let problem = format!(
            "\"embedded\" is expected, or addresses that begin with {}, with commas between",
            SCHEMES.join(", ")
        );
        return Err(values.bad("store.url", problem));
    }
    let level = match values.text("durability")? {
        // The same promise: synced before it is acknowledged.
        "fsync" => Level::Aof,
        other => other
            .parse()
            .map_err(|why| values.bad("durability", format!("with store.url in Redis, {why}")))?,
    };
    let pem = |key: &str| match values.path(key)? {
        Some(path) => std::fs::read(&path).map(Some).map_err(|cause| Error::Unreadable { path, cause }),
        None => Ok(None),
    };
    let identity = match (pem("store.tls.certificate")?, pem("store.tls.key")?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            return Err(values.bad("store.tls.certificate", "store.tls.key is missing beside it"));
        }
        (None, Some(_)) => {
            return Err(values.bad("store.tls.key", "store.tls.certificate is missing beside it"));
        }
    };
    let lease = values.number("store.lease_seconds", 1, limits::STORE_LEASE_SECONDS_MAX)?;
    let address = values.optional("store.address")?.map(str::to_owned);
    let is_place =
        |address: &String| address.parse::<http::uri::Authority>().is_ok_and(|place| place.port().is_some());
    if address.as_ref().is_some_and(|address| !is_place(address)) {
        return Err(values.bad("store.address", "HOST:PORT is expected"));
    }
    let membership = Membership { lease: Duration::from_secs(lease), address, stands_back: false };
    let config = Config {
        urls,
        tls: Tls { roots: pem("store.tls.ca_file")?, identity },
        level,
        replicas: Arc::default(),
        tag: Tag::Index,
        outage,
    };
    Ok(StoreChoice::Redis(config, membership))
}
