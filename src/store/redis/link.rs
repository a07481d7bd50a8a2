//! One server, asked until it answers.
//!
//! Must hold: only what may be asked twice is asked here. After a request without an answer the connection is dropped, and it counts as
//! *perhaps done* until an answer says otherwise; what was certainly not done is told apart ([`Unanswered`]). While the server is away,
//! tries are spread (10 ms to 0.5 s), and end after [`Config::outage`]; they go to one address after the other.
//!
//! In a cluster all keys of a partition are in one slot, so one server has them: where another says who (`MOVED`), that one is asked; while
//! the slot is on its way (`ASK`), that one is asked once.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Script, Value};
use tokio::time::{self, Instant};

use super::Config;
use super::fault::{Remedy, remedy};
use super::server::{self, Level};
use crate::limits;
use crate::store::Error;

/// Between two looks at how many replicas there are, where that matters.
const COUNTS: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE_MILLIS: (u64, u64) = (10, 500);

/// A request.
pub(super) enum Request<'a> {
    /// A command that changes nothing.
    Read(Cmd),
    /// The same by a script, and its arguments from the number of keys on.
    Query(&'a Script, Cmd),
    /// A script that may be called twice, likewise.
    Write(&'a Script, Cmd),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nothing was done.
    Refused(Error),
    /// Perhaps it was done.
    Unknown(Error),
}

/// A connection, made again when it breaks.
pub(super) struct Link {
    config: Config,
    /// Its addresses, for messages.
    server: String,
    connection: Option<MultiplexedConnection>,
    /// Replicas that its server had when it was made, and when they were counted last.
    replicas: (u32, Instant),
    /// Which of the addresses is tried next.
    turn: usize,
    /// The one that was named by another server.
    named: Option<Named>,
    requests: u64,
}

/// Where a slot is, or goes.
struct Named {
    url: String,
    /// For one request, which has to say that it was sent there.
    once: bool,
}

impl Link {
    /// Connects to the first that can be had.
    ///
    /// # Errors
    /// As [`server::connect`], of the last one; each is tried once. Too few replicas are refused here too, before anything is asked.
    pub(super) async fn connect(config: &Config) -> Result<Self, Error> {
        let mut link = Self::later(config);
        for _ in 1..config.urls.len() {
            if let Ok(connection) = link.reach().await {
                link.connection = Some(connection);
                break;
            }
        }
        if link.connection.is_none() {
            link.connection = Some(link.reach().await?);
        }
        server::enough(&link.server, config, link.replicas.0)?;
        Ok(link)
    }

    /// Connects with the first request.
    pub(super) fn later(config: &Config) -> Self {
        let server = super::shown(&config.urls);
        let (config, replicas) = (config.clone(), (0, Instant::now()));
        Self { config, server, connection: None, replicas, turn: 0, named: None, requests: 0 }
    }

    /// A connection to the server that was named, or else to the next address.
    async fn reach(&mut self) -> Result<MultiplexedConnection, Error> {
        if let Some(named) = &self.named {
            let reached = server::connect(&named.url, &self.config).await;
            if reached.is_err() {
                self.named = None;
            }
            return self.counted(reached);
        }
        let Some(url) = self.config.urls.get(self.turn % self.config.urls.len().max(1)) else {
            return Err(self.unreachable("no address is given"));
        };
        let reached = server::connect(url, &self.config).await;
        self.turn = self.turn.wrapping_add(usize::from(reached.is_err()));
        self.counted(reached)
    }

    fn counted(
        &mut self,
        reached: Result<(MultiplexedConnection, u32), Error>,
    ) -> Result<MultiplexedConnection, Error> {
        let (connection, replicas) = reached?;
        self.replicas = (replicas, Instant::now());
        Ok(connection)
    }

    /// Somebody else has what was asked for.
    fn redirected(&mut self, error: &RedisError) {
        let address = error.redirect_node().map(|(address, _)| address);
        let from = self.named.take().map(|named| named.url);
        let from = from.as_deref().or(self
            .config
            .urls
            .get(self.turn % self.config.urls.len().max(1))
            .map(String::as_str));
        let url = address.zip(from).and_then(|(address, from)| server::beside(from, address));
        self.named = url.map(|url| Named { url, once: error.code() == Some("ASK") });
        if self.named.is_none() {
            // A replica that was the primary: another one is now.
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// Its address, without a password.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Requests sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// The call of a script, with its keys.
    pub(super) fn script(script: &Script, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(script.get_hash()).arg(keys.len()).arg(keys);
        command
    }

    /// Asks until there is an answer.
    ///
    /// # Errors
    /// What the server refuses at once, and what it has not answered in time.
    pub(super) async fn ask(&mut self, request: Request<'_>) -> Result<Value, Unanswered> {
        let mut perhaps_done = false;
        let mut last = None;
        let outage = self.config.outage.min(Duration::from_secs(limits::STORE_OUTAGE_SECONDS_MAX));
        let answered =
            time::timeout(outage, self.until_answered(&request, &mut perhaps_done, &mut last)).await;
        let error = match answered {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            // A request that was under way went with its connection: nobody takes its answer for the next one's.
            Err(_) => last.unwrap_or_else(|| self.unreachable("it does not answer")),
        };
        Err(if perhaps_done { Unanswered::Unknown(error) } else { Unanswered::Refused(error) })
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::StoreUnreachable { server: self.server.clone(), why: why.to_owned() }
    }

    async fn until_answered(
        &mut self,
        request: &Request<'_>,
        perhaps_done: &mut bool,
        last: &mut Option<Error>,
    ) -> Result<Value, Error> {
        let mut pause = PAUSE_MILLIS.0;
        loop {
            match self.once(request, perhaps_done).await {
                Ok(answer) => return Ok(answer),
                Err(error @ Error::StoreUnreachable { .. }) => *last = Some(error),
                Err(error) => return Err(error),
            }
            time::sleep(Duration::from_millis(pause)).await;
            pause = (pause * 2).min(PAUSE_MILLIS.1);
        }
    }

    async fn once(&mut self, request: &Request<'_>, perhaps_done: &mut bool) -> Result<Value, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.reach().await?,
        };
        if matches!(request, Request::Write(..)) {
            // Nothing is done that would not be acknowledged; the next connection counts again.
            server::enough(&self.server, &self.config, self.replicas.0)?;
        }
        let perhaps_before = std::mem::replace(perhaps_done, true);
        let mut answer = self.send(&mut connection, request).await;
        if let (Err(error), Request::Query(script, _) | Request::Write(script, _)) = (&answer, request)
            && remedy(error) == Remedy::Load
        {
            answer = match script.load_async(&mut connection).await {
                Ok(_) => self.send(&mut connection, request).await,
                Err(error) => Err(error),
            };
        }
        // What a slot on its way was asked once is asked where it was, from then on.
        let stays = self.named.take_if(|named| named.once).is_none();
        match answer {
            Ok(Some(answer)) => {
                self.connection = stays.then_some(connection);
                Ok(answer)
            }
            Ok(None) => {
                // Kept: what it waits for is the last thing this connection wrote.
                self.connection = stays.then_some(connection);
                Err(self.unreachable("degraded: too few replicas have it"))
            }
            Err(error) => {
                let remedy = remedy(&error);
                *perhaps_done = perhaps_before || remedy == Remedy::Reconnect;
                match remedy {
                    Remedy::Wait | Remedy::Load | Remedy::Refuse => {
                        self.connection = stays.then_some(connection);
                    }
                    Remedy::Elsewhere => self.redirected(&error),
                    Remedy::Reconnect => {}
                }
                Err(server::said(&self.server, &error))
            }
        }
    }

    /// The answer; `None` when fewer replicas than the level asks for have what was written.
    async fn send(
        &mut self,
        connection: &mut MultiplexedConnection,
        request: &Request<'_>,
    ) -> Result<Option<Value>, RedisError> {
        self.requests += 1;
        let (Request::Write(_, command) | Request::Query(_, command) | Request::Read(command)) = request;
        // All on the same connection, one right behind the other.
        let (mut asking, mut wait, mut count) = (None, None, None);
        if self.named.as_ref().is_some_and(|named| named.once) {
            asking = Some(redis::cmd("ASKING"));
        }
        let copies = self.config.level.copies(&self.config.replicas);
        if let (Request::Write(..), Some(copies)) = (request, copies) {
            // What is waited for is what the script wrote.
            let mut command = redis::cmd("WAIT");
            command.arg(copies).arg(limits::STORE_ANSWER_MILLIS_MAX / 2);
            wait = Some((command, copies));
            if self.config.level == Level::ReplicatedToAll && self.replicas.1.elapsed() >= COUNTS {
                let mut command = redis::cmd("INFO");
                command.arg("replication");
                count = Some(command);
            }
        }
        let commands =
            asking.iter().chain([command]).chain(wait.iter().map(|(wait, _)| wait)).chain(count.as_ref());
        let sent = commands.map(|command| {
            let mut connection = connection.clone();
            async move { connection.send_packed_command(command).await?.extract_error() }
        });
        let mut answers = join_all(sent).await;
        if let Some(said) = count.and_then(|_| answers.pop()) {
            self.count(said);
        }
        let copies = wait.and_then(|(_, replicas)| Some((answers.pop()?, replicas)));
        let answer = answers.pop().unwrap_or(Ok(Value::Nil))?;
        // It was done, also where nobody says how many have it.
        let enough = copies.is_none_or(
            |(copies, replicas)| matches!(copies, Ok(Value::Int(copies)) if copies >= i64::from(replicas)),
        );
        Ok(enough.then_some(answer))
    }

    /// Replicas that came since are waited for from the next write on.
    fn count(&mut self, said: Result<Value, RedisError>) {
        let said = said.ok().and_then(|said| redis::from_redis_value::<redis::InfoDict>(said).ok());
        if let Some(connected) = said.and_then(|said| said.get("connected_slaves")) {
            self.config.replicas.seen(connected);
            self.replicas = (connected, Instant::now());
        }
    }
}
