//! A node in one thread: the real interface and hub, a shard that only keeps runs in a map, storage in memory.

mod letters;
mod memory;
mod shard;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use aob::api::{Catalog, Entropy, Gate, NodeView, ServiceParts, Services, serve};
use aob::fanout::{Hub, hub};
use aob::limits;
use aob::model::{Place, RunId};
use aob::queue::{FullPolicy, bounded};
use aob::time::Timestamp;
use aob::wire::node::NodeInfo;

use self::memory::{Memory, Source};
use self::shard::Shard;

struct View;

impl NodeView for View {
    fn info(&self) -> NodeInfo {
        NodeInfo { version: "test".into(), durability: "fsync".into(), ..NodeInfo::default() }
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// What adds anything but functions waits for a human.
fn holding() -> Arc<aob::auth::Holding> {
    Arc::new(aob::auth::Holding {
        whose: aob::auth::holding::Whose::Everybody,
        safe_kinds: [Arc::from("function")].into(),
        ..aob::auth::Holding::default()
    })
}

/// A lease that the node would have given out, for an attempt that is over.
pub(crate) fn lease() -> String {
    let run_id = RunId::new(Timestamp::from_micros(1), aob::model::Partition::new(0), [0; 10]);
    let room = ("default".into(), "mail".into());
    aob::exec::Leases::new([7; 32]).seal(&aob::exec::Ticket { run_id, place: Place::root(0), seq: 1, room })
}

/// A door for everybody, with a log of who came.
fn door(root: &std::path::Path) -> Arc<aob::auth::Door> {
    let door = aob::auth::Door { holding: holding(), ..aob::auth::Door::default() };
    let key = Arc::new(aob::store::signing::SigningKey::open(root).unwrap());
    let log = aob::audit::Log::open(
        (root, [1; 16]),
        key,
        aob::audit::Settings::default(),
        Timestamp::from_micros(1),
    );
    door.audit.set(log.unwrap()).unwrap();
    Arc::new(door)
}

/// Runs `test` against a node of its own.
pub(crate) fn with_node<F: Future<Output = ()>>(test: impl FnOnce(SocketAddr) -> F) {
    let audited = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let memory = Arc::new(Memory::default());
        let catalog = Catalog::new(memory.clone());
        let (commands, shard_end) =
            bounded("shard-0", limits::SHARD_QUEUE_COMMANDS_MAX, FullPolicy::RefuseCaller);
        let (core_replies, core_end) = bounded("replies-0", limits::REPLY_QUEUE_MAX, FullPolicy::Reserved);
        let (hub_replies, hub_end) = bounded("replies-1", limits::REPLY_QUEUE_MAX, FullPolicy::Reserved);
        let (pushes, pushes_end) = bounded("fanout-0", limits::FANOUT_QUEUE_MAX, FullPolicy::DropAndResync);
        let (requests, requests_end) = bounded("hub-0", limits::HUB_QUEUE_MAX, FullPolicy::RefuseCaller);
        let subscribers = Arc::new(aob::telemetry::StreamCells::default());
        let shard = Shard::new(memory.clone(), [core_replies, hub_replies], pushes);
        tokio::task::spawn_local(shard.run(shard_end));
        let hub = Hub::new(hub::Parts {
            index: 0,
            core: 1,
            shards: vec![commands.clone()],
            replies: hub_end,
            pushes: pushes_end,
            requests: requests_end,
            asking: aob::fanout::Asking::new(Vec::new()),
            source: Arc::new(Source { memory: memory.clone(), catalog: catalog.clone() }),
            subscribers: subscribers.clone(),
        });
        tokio::task::spawn_local(hub.run(std::future::pending()));
        let cells = Arc::new(aob::telemetry::ShardCells::default());
        cells.runs_started.add(3);
        cells.finished.cells(&"w".into())[0].add(2);
        let gate = Gate::new(0, vec![commands.clone()]);
        tokio::task::spawn_local(gate.clone().deliver(core_end));
        let index = tempfile::tempdir().unwrap();
        let services = Services::new(ServiceParts {
            gate,
            catalog,
            runs: memory,
            contents: Arc::new(crate::inline::Inline::default()),
            artifacts: aob::api::artifacts::Artifacts::new(
                Arc::new(aob::store::artifacts::MemoryArtifacts::default()),
                false,
            ),
            hubs: vec![requests],
            node: Arc::new(View),
            cells: vec![cells],
            quic_cells: Vec::new(),
            subscribers: vec![subscribers],
            queues: vec![commands.stats().clone()],
            durability: "fsync".into(),
            executors: aob::exec::Executors {
                models: aob::exec::Models::new(&aob::exec::models::Settings::default()).0,
                http: aob::exec::Http::new().0,
                pool: Arc::default(),
                slots: Arc::default(),
                ledger: Arc::default(),
                leases: aob::exec::Leases::new([7; 32]),
                reach: Arc::default(),
                tools: aob::exec::Tools::new().0,
                cached: Arc::default(),
                summaries: None,
            },
            reviewing: aob::api::Reviewing {
                approvals: Arc::new(aob::store::index::Index::open(index.path()).unwrap()),
                noticed: Arc::default(),
                url: "http://node".into(),
                attempts: (3, std::time::Duration::from_secs(1)),
            },
            letters: Arc::new(letters::Any),
            entropy: Entropy::from_system().unwrap(),
            door: door(audited.path()),
            triggers: aob::api::Triggers::new(Arc::new(aob::store::triggers::InMemory::default()), [7; 32]),
            connections_max: limits::CONNECTIONS_PER_CORE_MAX,
            drain: std::time::Duration::from_secs(5),
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let server = tokio::task::spawn_local(serve(listener, Rc::clone(&services), stopped));
        test(address).await;
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    });
}
