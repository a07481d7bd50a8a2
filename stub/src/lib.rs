//! A model that is none: it speaks the chat API of OpenAI and the messages API of Anthropic, answers by the request and a script
//! alone, and keeps an account of its own of what it served (docs/operating/stub-model.md).
//!
//! Tests start it in their own process with [`Stub::start`], everybody else as `aob-stub-model`. Nothing here knows the node: what
//! it counts is compared with what the node says. One thread serves; every list is bounded (`limits.rs`).

#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::too_many_lines, reason = "tests fail loudly by design")
)]

mod account;
mod anthropic;
mod ask;
mod behaviour;
mod body;
mod call;
mod directive;
mod embeddings;
mod frames;
mod hash;
mod instance;
mod kept;
mod limits;
mod openai;
mod reply;
mod script;
mod serve;
mod state;
mod strict;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::sync_channel;

use serde_json::Value;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use state::State;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The script to begin with, `{"rules": [...]}`.
    pub script: Option<Value>,
    /// Milliseconds that every answer of a model is held back.
    pub latency_ms: u64,
    /// When given, chat and embeddings need it as `Authorization: Bearer`.
    pub openai_key: Option<String>,
    /// When given, messages need it as `x-api-key`, and an `anthropic-version`.
    pub anthropic_key: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen, script: None, latency_ms: 0, openai_key: None, anthropic_key: None }
    }
}

/// Why it does not serve.
#[derive(Debug)]
pub enum Error {
    /// The address, the runtime or the thread.
    Io(std::io::Error),
    /// The script, and where in it.
    Script(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Script(what) => write!(f, "the script: {what}"),
        }
    }
}

impl std::error::Error for Error {}

/// A stub that serves on a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Stub {
    /// Where it listens.
    pub address: SocketAddr,
    commands: Option<UnboundedSender<serve::Command>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stub {
    /// Begins to serve.
    ///
    /// # Errors
    /// The address is taken, or the script is none.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (begun, ready) = Self::begin(options)?;
        begun.served_at(ready.await)
    }

    /// The same for callers without a runtime.
    ///
    /// # Errors
    /// As [`Stub::start`].
    ///
    /// # Panics
    /// When it is called within a runtime.
    pub fn start_blocking(options: Options) -> Result<Self, Error> {
        let (begun, ready) = Self::begin(options)?;
        begun.served_at(ready.blocking_recv())
    }

    fn begin(options: Options) -> Result<(Self, oneshot::Receiver<Result<SocketAddr, Error>>), Error> {
        let address = options.listen;
        let (commands, receiver) = unbounded_channel();
        let (tell, ready) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("stub-model".into())
            .spawn(move || serve::run(options, receiver, |served| drop(tell.send(served))))
            .map_err(Error::Io)?;
        Ok((Self { address, commands: Some(commands), thread: Some(thread) }, ready))
    }

    fn served_at(
        mut self,
        ready: Result<Result<SocketAddr, Error>, oneshot::error::RecvError>,
    ) -> Result<Self, Error> {
        self.address = ready.map_err(|error| Error::Io(std::io::Error::other(error)))??;
        Ok(self)
    }

    /// `http://` and the address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The account, as `GET /stats` shows it, with every key that is kept.
    #[must_use]
    pub fn stats(&self) -> Value {
        self.with(|state| state.stats(usize::MAX))
    }

    /// The last requests, as `GET /requests` shows them.
    #[must_use]
    pub fn requests(&self, limit: usize) -> Value {
        self.with(move |state| state.kept.borrow().shown(limit))
    }

    /// Puts a script in force in place of the one that is.
    ///
    /// # Errors
    /// What is wrong with it; then the old one stays.
    pub fn script(&self, script: &Value) -> Result<(), Error> {
        let script = script.clone();
        self.with(move |state| state.replace_script(&script)).map_err(Error::Script)
    }

    /// Makes everything as it was in the beginning.
    pub fn reset(&self) {
        self.with(|state| state.reset(false));
    }

    /// Ends it: connections close at once.
    pub fn stop(self) {
        drop(self);
    }

    /// Has something done by the thread that owns the state. Only callers that wait for it send anything, so the channel holds no
    /// more commands than there are callers.
    fn with<T: Send + 'static>(&self, work: impl FnOnce(&State) -> T + Send + 'static) -> T {
        let (tell, told) = sync_channel(1);
        let command: serve::Command = Box::new(move |state| drop(tell.send(work(state))));
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
        told.recv().expect("the stub's thread serves until it is dropped")
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves on the thread of the caller, for as long as the process lives; `ready` is told the address.
///
/// # Errors
/// As [`Stub::start`].
pub fn serve(options: Options, ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
    let (_commands, receiver) = unbounded_channel();
    let mut refused = None;
    serve::run(options, receiver, |served| match served {
        Ok(address) => ready(address),
        Err(error) => refused = Some(error),
    });
    refused.map_or(Ok(()), Err)
}
