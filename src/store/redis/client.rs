//! Asks a server from threads that know nothing of it.
//!
//! ```text
//!   any thread: Client ══ requests ══► a thread within tokio: Serving ─► links ─► server
//! ```
//!
//! Whoever asks blocks; only what may be asked twice is asked. Full: [`limits::STORE_REQUESTS_MAX`]; the caller is refused
//! ([`StoreUnreachable`](Error::StoreUnreachable)). At most [`LINKS_MAX`] are under way, the others wait in line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use redis::Value;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::link::{Link, Request, Unanswered};
use super::{Config, Tag, shown};
use crate::io;
use crate::limits;
use crate::store::Error;

/// Requests under way at the same time.
const LINKS_MAX: usize = 8;

/// What is asked of the thread that talks to the server, and who waits for it.
type Ask = (Request<'static>, SyncSender<Result<Value, Unanswered>>);

/// The end that asks. All its keys are of one tag.
#[derive(Clone, Debug)]
pub struct Client {
    asks: Sender<Ask>,
    server: Arc<str>,
    tag: Tag,
}

/// What has to run on a thread of its own, within tokio; it ends when nobody can ask any more.
pub struct Serving {
    config: Config,
    asks: Receiver<Ask>,
    line: Rc<RefCell<Line>>,
}

/// Requests that wait, and connections that do not.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Ask>,
    idle: Vec<Link>,
    busy: usize,
}

impl Client {
    /// One, and what asks the server for it. Nothing is asked yet.
    pub fn new(config: &Config) -> (Self, impl FnOnce() -> Serving + Send + use<>) {
        let (sender, asks) = mpsc::channel(limits::STORE_REQUESTS_MAX);
        let client = Self { asks: sender, server: shown(&config.urls).into(), tag: config.tag };
        let config = config.clone();
        (client, move || Serving { config, asks, line: Rc::default() })
    }

    /// Its address, without a password.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What its keys are tagged with.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, request: Request<'static>) -> Result<Value, Error> {
        let unreachable = |why: String| Error::StoreUnreachable { server: self.server.to_string(), why };
        let (answer, answered) = sync_channel(1);
        self.asks.try_send((request, answer)).map_err(|error| match error {
            TrySendError::Full(_) => {
                let max = limits::STORE_REQUESTS_MAX;
                unreachable(format!("{max} requests wait for it (limit store_requests_max)"))
            }
            TrySendError::Closed(_) => unreachable(String::from("nobody talks to it any more")),
        })?;
        match answered.recv() {
            Ok(Ok(answer)) => Ok(answer),
            // What may have been done may be asked for again: it says what stands there then.
            Ok(Err(Unanswered::Refused(error) | Unanswered::Unknown(error))) => Err(error),
            Err(_) => Err(unreachable(String::from("nobody talks to it any more"))),
        }
    }
}

impl Serving {
    /// Sends what is asked for, and answers.
    pub async fn run(mut self) {
        while let Some(ask) = self.asks.recv().await {
            self.line.borrow_mut().waiting.push_back(ask);
            self.begin();
        }
    }

    fn begin(&self) {
        let mut line = self.line.borrow_mut();
        // Those that are busy go on with what waits.
        if line.busy < LINKS_MAX {
            line.busy += 1;
            let link = line.idle.pop().unwrap_or_else(|| Link::later(&self.config));
            io::spawn_local(serve(link, self.line.clone()));
        }
    }
}

/// Takes what waits, until nothing does.
async fn serve(mut link: Link, line: Rc<RefCell<Line>>) {
    loop {
        let next = line.borrow_mut().waiting.pop_front();
        let Some((request, answer)) = next else { break };
        // Nobody may wait for it any more.
        let _ = answer.send(link.ask(request).await);
    }
    let mut line = line.borrow_mut();
    line.busy -= 1;
    line.idle.push(link);
}
