//! One server, asked until it answers.
//!
//! Must hold: only what may be asked twice is asked here. After a request without an answer the connection is dropped, and it counts as
//! *perhaps done* until an answer says otherwise; what was certainly not done is told apart ([`Unanswered`]). While the server is away,
//! tries are spread (10 ms to 0.5 s), and end after [`Config::outage`].

use std::time::Duration;

use futures_util::future::join;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Script, Value};
use tokio::time;

use super::Config;
use super::fault::{Remedy, remedy};
use super::server::{self, Level};
use crate::limits;
use crate::store::Error;

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
    server: String,
    connection: Option<MultiplexedConnection>,
    requests: u64,
}

impl Link {
    /// Connects.
    ///
    /// # Errors
    /// As [`server::connect`]; it is tried once.
    pub(super) async fn connect(config: &Config) -> Result<Self, Error> {
        let connection = Some(server::connect(&config.url, config.level).await?);
        Ok(Self { connection, ..Self::later(config) })
    }

    /// Connects with the first request.
    pub(super) fn later(config: &Config) -> Self {
        let server = super::without_password(&config.url);
        Self { config: config.clone(), server, connection: None, requests: 0 }
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
            None => server::connect(&self.config.url, self.config.level).await?,
        };
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
        match answer {
            Ok(Some(answer)) => {
                self.connection = Some(connection);
                Ok(answer)
            }
            Ok(None) => {
                // Kept: what it waits for is the last thing this connection wrote.
                self.connection = Some(connection);
                Err(self.unreachable("degraded: too few replicas have it"))
            }
            Err(error) => {
                let remedy = remedy(&error);
                *perhaps_done = perhaps_before || remedy == Remedy::Reconnect;
                if matches!(remedy, Remedy::Wait | Remedy::Load | Remedy::Refuse) {
                    self.connection = Some(connection);
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
        match (request, self.config.level) {
            (Request::Write(_, command), Level::Replicated(replicas)) => {
                // On the same connection and right behind it: what is waited for is what the script wrote.
                let mut wait = redis::cmd("WAIT");
                wait.arg(replicas).arg(limits::STORE_ANSWER_MILLIS_MAX / 2);
                let mut second = connection.clone();
                let (answer, copies) =
                    join(connection.send_packed_command(command), second.send_packed_command(&wait)).await;
                let (answer, copies) = (answer?.extract_error()?, copies?.extract_error()?);
                Ok(matches!(copies, Value::Int(copies) if copies >= i64::from(replicas)).then_some(answer))
            }
            (Request::Write(_, command) | Request::Query(_, command) | Request::Read(command), _) => {
                connection.send_packed_command(command).await?.extract_error().map(Some)
            }
        }
    }
}
