//! The lease of a store: which node owns what is in it, as a row that is only ever replaced by whoever knows how it stands.
//!
//! ```text
//!   aob:{index}:lease   string   NODE TURN held|free MILLISECONDS ADDRESS
//!   aob:{index}:nodes   hash     id of a node -> when it was heard last (the server's clock), ADDRESS
//!   aob:{index}:key     string   32 bytes that all nodes of the store share
//! ```
//!
//! The lease keeps nobody from writing: fences do (`append.lua`, `write.lua`). It says who is to claim them, and for how long the owner may
//! answer reads without asking. No clock stands in it: whoever holds it counts from before it asked, whoever waits for it counts from
//! after it saw that nothing had moved, each by its own clock. A server that fails over and forgets a renewal costs a turn. One that forgets that the lease
//! was *taken* (it was acknowledged by too few replicas) leaves two that answer reads, for the time of a lease at most; fences hold.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, Value};
use tokio::time::Instant;

use super::link::{Link, Request, Unanswered};
use super::{Config, damaged};
use crate::limits;
use crate::store::Error;

static LEASE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lease.lua")));

/// Which node, as long as its data directory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub [u8; 16]);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for NodeId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = Some(text).filter(|text| text.len() == 32);
        let number = number.and_then(|text| u128::from_str_radix(text, 16).ok());
        number.map(|number| Self(number.to_be_bytes())).ok_or(())
    }
}

/// What stands at the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who put it there.
    pub node: NodeId,
    /// One more each time.
    pub turn: u64,
    /// Is it held still, or was it given up?
    pub is_held: bool,
    /// How long it is good for.
    pub lasts: Duration,
    /// Where the node takes requests of others: `http://HOST:PORT`.
    pub address: String,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, turn, is_held, lasts, address } = self;
        let state = if *is_held { "held" } else { "free" };
        write!(f, "{node} {turn} {state} {} {address}", lasts.as_millis())
    }
}

impl FromStr for Row {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split(' ').collect();
        let [node, turn, state, millis, address] = words.as_slice() else { return Err(()) };
        let most = limits::STORE_LEASE_SECONDS_MAX * 1_000;
        let millis = millis.parse().ok().filter(|millis| (1..=most).contains(millis)).ok_or(())?;
        let is_held = match *state {
            "held" => true,
            "free" => false,
            _ => return Err(()),
        };
        Ok(Self {
            node: node.parse()?,
            turn: turn.parse().map_err(drop)?,
            is_held,
            lasts: Duration::from_millis(millis),
            address: (*address).to_owned(),
        })
    }
}

/// What a look found.
#[derive(Clone, Debug)]
pub struct Seen {
    /// At the lease; `None`: nothing ever stood there.
    pub row: Option<Row>,
    /// What all nodes share.
    pub key: [u8; 32],
    /// Nodes that were heard of lately, and where they are.
    pub nodes: Vec<(NodeId, String)>,
}

/// The lease, asked for by one node. Within tokio.
pub struct Leases {
    link: Link,
    keys: [String; 3],
    node: NodeId,
    address: String,
    forgotten_after: Duration,
    /// When it was said last where this node is.
    said: Option<Instant>,
    key: [u8; 32],
}

/// Times that it is said before the node would be forgotten.
const SAID_TIMES: u32 = 6;

impl Leases {
    /// For a node that is to be found at `address`. `key` is what all are to share if nothing is yet. Nothing is asked.
    pub fn new(
        config: &Config,
        (node, address): (NodeId, &str),
        key: [u8; 32],
        forgotten_after: Duration,
    ) -> Self {
        let of = |name: &str| format!("aob:{{{}}}:{name}", config.tag);
        let keys = [of("lease"), of("nodes"), of("key")];
        let (link, address) = (Link::later(config), address.to_owned());
        Self { link, keys, node, address, forgotten_after, said: None, key }
    }

    /// How it stands.
    ///
    /// # Errors
    /// The server's, after [`Config::outage`]; `StoreDamaged`.
    pub async fn look(&mut self) -> Result<Seen, Error> {
        let command = self.command(true);
        self.ask(Request::Query(&LEASE, command)).await
    }

    /// Puts `wanted` there if `expected` stands there; it is there when it is what is seen. May be asked for again. What was taken or given
    /// up is durable at the level of the server. A renewal waits for no replica, for one that is forgotten costs a turn: while
    /// replicas are away the owner goes on to answer reads.
    ///
    /// # Errors
    /// As [`look`](Self::look); it may be there then.
    pub async fn put(&mut self, expected: Option<&Row>, wanted: &Row) -> Result<Seen, Error> {
        let mut command = self.command(wanted.is_held);
        command.arg(expected.map(Row::to_string).unwrap_or_default()).arg(wanted.to_string());
        let renews = wanted.is_held && expected.is_some_and(|row| row.is_held && row.node == wanted.node);
        self.ask(if renews { Request::Query(&LEASE, command) } else { Request::Write(&LEASE, command) }).await
    }

    /// Says that this node goes. What it holds it holds still.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub async fn leave(&mut self) -> Result<(), Error> {
        let command = self.command(false);
        self.ask(Request::Query(&LEASE, command)).await.map(drop)
    }

    fn command(&mut self, stays: bool) -> redis::Cmd {
        let mut command = Link::script(&LEASE, &self.keys.each_ref().map(String::as_str));
        let millis = u64::try_from(self.forgotten_after.as_millis()).unwrap_or(u64::MAX);
        let lately = |said: &Instant| said.elapsed() < self.forgotten_after / SAID_TIMES;
        let address = match &self.said {
            _ if !stays => "",
            // Who waits looks ten times a second: a server that syncs each write has nothing to sync for it.
            Some(said) if lately(said) => "-",
            _ => {
                self.said = Some(Instant::now());
                self.address.as_str()
            }
        };
        command.arg(self.node.to_string()).arg(address).arg(millis).arg(&self.key[..]);
        command
    }

    async fn ask(&mut self, request: Request<'_>) -> Result<Seen, Error> {
        match self.link.ask(request).await {
            Ok(answer) => self.seen(answer),
            Err(Unanswered::Refused(error) | Unanswered::Unknown(error)) => {
                self.said = None;
                Err(error)
            }
        }
    }

    fn seen(&self, answer: Value) -> Result<Seen, Error> {
        let [lease, _, shared] = &self.keys;
        let parts: Vec<Vec<u8>> =
            redis::from_redis_value(answer).map_err(|error| damaged(lease, error.to_string()))?;
        let [row, key, nodes @ ..] = parts.as_slice() else { return Err(damaged(lease, "a short answer")) };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let row = match row.as_slice() {
            [] => None,
            row => Some(text(row).parse().map_err(|()| damaged(lease, "it is no row of a lease"))?),
        };
        let key = key.as_slice().try_into().map_err(|_| damaged(shared, "it does not hold 32 bytes"))?;
        let nodes = nodes.as_chunks::<2>().0.iter();
        let nodes = nodes.filter_map(|[id, place]| Some((text(id).parse().ok()?, text(place)))).collect();
        Ok(Seen { row, key, nodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::file::testing::on_tokio;
    use crate::store::redis::testing::{AOF, Server};
    use crate::store::redis::{Level, Tag};

    const LASTS: Duration = Duration::from_secs(5);

    fn row(node: u8, turn: u64, is_held: bool) -> Row {
        let address = format!("http://127.0.0.1:{node}");
        Row { node: NodeId([node; 16]), turn, is_held, lasts: LASTS, address }
    }

    fn of(server: &Server, node: u8) -> Leases {
        let config = Config { tag: Tag::Index, ..server.config(Level::Aof) };
        let address = format!("http://127.0.0.1:{node}");
        Leases::new(&config, (NodeId([node; 16]), &address), [node; 32], LASTS)
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for row in [row(7, 0, true), row(255, u64::MAX, false)] {
            assert_eq!(row.to_string().parse(), Ok(row));
        }
        let good = row(1, 2, true).to_string();
        let words: Vec<&str> = good.split(' ').collect();
        for (at, wrong) in [(0, "1"), (1, "-1"), (2, "mine"), (3, "0"), (3, "60001"), (4, "two words")] {
            let mut words = words.clone();
            words[at] = wrong;
            assert_eq!(words.join(" ").parse::<Row>(), Err(()), "{wrong}");
        }
    }

    // F083
    #[test]
    fn a_lease_goes_to_whoever_knows_how_it_stands() {
        let Some(server) = Server::start(&AOF) else { return };
        on_tokio(async {
            let (mut first, mut second) = (of(&server, 1), of(&server, 2));
            let seen = first.look().await.unwrap();
            assert_eq!((seen.row, seen.key, seen.nodes.len()), (None, [1; 32], 1));
            let taken = row(1, 1, true);
            assert_eq!(first.put(None, &taken).await.unwrap().row, Some(taken.clone()));
            // Without an answer it is asked for again.
            assert_eq!(first.put(None, &taken).await.unwrap().row, Some(taken.clone()));

            let seen = second.put(None, &row(2, 1, true)).await.unwrap();
            assert_eq!((seen.row.as_ref(), seen.key), (Some(&taken), [1; 32]), "the first one's key is kept");
            let mut nodes = seen.nodes;
            nodes.sort_by_key(|(node, _)| node.0);
            let places = [1, 2].map(|node| (NodeId([node; 16]), format!("http://127.0.0.1:{node}")));
            assert_eq!(nodes, places);

            let later = row(2, 2, true);
            assert_eq!(second.put(Some(&taken), &later).await.unwrap().row, Some(later.clone()));
            let renewed = row(1, 2, true);
            assert_eq!(first.put(Some(&taken), &renewed).await.unwrap().row, Some(later.clone()), "too late");

            let given_up = row(2, 3, false);
            let seen = second.put(Some(&later), &given_up).await.unwrap();
            assert_eq!((seen.row, seen.nodes.len()), (Some(given_up), 1), "it has gone");
        });
    }

    #[test]
    fn what_is_no_lease_is_said_to_be_damaged() {
        let Some(server) = Server::start(&AOF) else { return };
        server.command(&["SET", "aob:{index}:lease", "what is this"]);
        let error = on_tokio(async { of(&server, 1).look().await.unwrap_err() });
        assert_eq!(error.code(), "store_damaged");
        assert!(error.to_string().contains("aob:{index}:lease"), "{error}");
    }

    // F083
    #[test]
    fn a_node_that_is_not_heard_of_is_forgotten() {
        let Some(server) = Server::start(&AOF) else { return };
        on_tokio(async {
            let mut gone = of(&server, 1);
            gone.look().await.unwrap();
            let mut here = of(&server, 2);
            here.forgotten_after = Duration::from_millis(1);
            while here.look().await.unwrap().nodes.len() > 1 {}
        });
    }
}
