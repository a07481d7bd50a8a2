//! What the node says about itself at `/v1/node`.

use serde::{Deserialize, Serialize};

use crate::queue::{FullPolicy, Stats};

/// The node as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeInfo {
    /// Of the binary.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// `starting`, `standing_by`, `recovering`, `serving`, `draining`, `stopped`.
    pub phase: String,
    /// Where its state is.
    pub data_dir: String,
    /// Level of every acknowledgement.
    pub durability: String,
    /// `full` or `fast`.
    pub mode: String,
    /// Owner epoch.
    pub epoch: u64,
    /// Microseconds of processor time the process has used, user and system.
    pub cpu_us: u64,
    /// Planes and their threads.
    pub planes: Vec<PlaneInfo>,
    /// The doors between them.
    pub queues: Vec<QueueInfo>,
    /// Event streams open now.
    pub stream_subscribers: u64,
    /// Where streams are over QUIC and WebTransport; not there when they are off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quic: Option<QuicInfo>,
    /// Bytes on disk, a second old at most.
    pub storage: StorageInfo,
    /// What stores the products of patches.
    #[serde(default)]
    pub materializer: MaterializerInfo,
    /// The nodes on the same store; not there when state is in the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInfo>,
}

/// Nodes on one store, as this one knows of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterInfo {
    /// The id of this node.
    pub node: String,
    /// Does it own the store?
    pub owns: bool,
    /// How often the lease of the store was taken or renewed.
    pub turn: u64,
    /// For how long it is good each time; 0 when nobody has it.
    pub lease_seconds: u64,
    /// Requests that this node has passed on to the owner.
    pub forwarded: u64,
    /// Nodes that were heard of lately.
    pub nodes: Vec<ClusterNode>,
}

/// A node on the store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClusterNode {
    /// Its id.
    pub node: String,
    /// Where it takes requests.
    pub address: String,
    /// Does it own the store?
    pub owns: bool,
}

/// QUIC.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QuicInfo {
    /// Address and port (UDP).
    pub address: String,
    /// SHA-256, in hex, of the certificate that the node made for itself, for `serverCertificateHashes`; not there when it has one
    /// from a file. It changes with each start, and before it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_sha256: Option<String>,
}

/// What stores the products of patches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MaterializerInfo {
    /// Patches whose artifacts are still to be stored.
    pub lag_patches: u64,
    /// Artifacts stored since the start.
    pub artifacts: u64,
    /// Patches whose documents could not be made again.
    pub unmade: u64,
}

/// Bytes on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StorageInfo {
    /// Segments of the journals that hold events, or are prepared for them.
    pub journal_bytes: u64,
    /// Segments that wait to be used again.
    pub journal_free_bytes: u64,
    /// History files, by retention class.
    pub history_bytes: std::collections::BTreeMap<String, u64>,
    /// The index.
    pub index_bytes: u64,
    /// What is free on the file system of the data directory.
    pub free_bytes: u64,
    /// Segments that take no more events and wait to be moved to history; part of `journal_bytes`.
    pub unmoved_bytes: u64,
    /// Finished runs forgotten before their time since the start (`history.bytes_max`).
    pub dropped_runs: u64,
    /// History files removed with them.
    pub dropped_files: u64,
    /// Why no new work is taken; not there when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_room: Option<NoRoomInfo>,
}

/// Why no new work is taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NoRoomInfo {
    /// As of the refusals: `disk_low`, `history_full`, `journal_behind`.
    pub code: String,
    /// With value, limit and key.
    pub detail: String,
}

/// One plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PlaneInfo {
    /// `control`, `runner`, `fanout`, `side`.
    pub name: String,
    /// `tokio` or `glommio`.
    pub runtime: String,
    /// Its threads.
    pub threads: Vec<ThreadInfo>,
}

/// One thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ThreadInfo {
    /// As the operating system shows it.
    pub name: String,
    /// The core it is pinned to, when it is.
    pub core: Option<usize>,
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// Items waiting.
    pub depth: usize,
    /// Items it can hold.
    pub capacity: usize,
    /// What happens when it is full.
    pub full_policy: String,
    /// Items ever taken in.
    pub sent: u64,
    /// Items ever given back because it was full.
    pub refused: u64,
}

impl From<&Stats> for QueueInfo {
    fn from(stats: &Stats) -> Self {
        let full_policy = match stats.full_policy() {
            FullPolicy::RefuseCaller => "refuse_caller",
            FullPolicy::DropAndResync => "drop_and_resync",
            FullPolicy::Reserved => "reserved",
        };
        Self {
            name: stats.name().to_owned(),
            depth: stats.depth(),
            capacity: stats.capacity(),
            full_policy: full_policy.to_owned(),
            sent: stats.sent(),
            refused: stats.refused(),
        }
    }
}
