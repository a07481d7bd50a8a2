//! Log lines: one line of JSON (or of plain text, for people) each, to standard error.
//!
//! A line that is switched off costs one relaxed load: its parts are borrowed, nothing is formatted or allocated. What a line
//! is about ([`About`]) is handed to it and kept nowhere, so no line can carry the context of another request. Lines go by a
//! queue to a thread of their own, because standard error may block; before that thread runs and after it ended they are
//! written at once. Each target may write [`limits::LOG_LINES_PER_SECOND_MAX`] a second; what is beyond that, or finds the
//! queue full, is left out and counted, and the next line of the target says how many were (`left_out`).

use std::fmt::{Arguments, Display, Write as _};
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use crate::limits;
use crate::queue::Sender;
use crate::time::{Clock as _, SystemClock, Timestamp};

/// How much matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// The node, or a part of it, ends.
    Error,
    /// Somebody should look.
    Warn,
    /// What an operator did, and what the node is.
    Info,
    /// Every request.
    Debug,
}

impl Level {
    /// As in lines and in `log.level`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// `log.format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What the configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `log.format`
    pub format: Format,
    /// `log.level`
    pub level: Level,
}

/// Which part of the node a line comes from. Each has its own share of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Start, reload, end, threads.
    Node,
    /// Journals, index.
    Store,
    /// What is done for nodes of runs: calls, jobs of workers.
    Work,
    /// Requests that went wrong in the node.
    Api,
    /// One line for each request.
    Access,
}

const TARGETS: [Target; 5] = [Target::Node, Target::Store, Target::Work, Target::Api, Target::Access];

impl Target {
    /// As in lines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Store => "store",
            Self::Work => "work",
            Self::Api => "api",
            Self::Access => "access",
        }
    }

    fn share(self) -> &'static Share {
        static SHARES: [Share; 5] = [const { Share::new() }; 5];
        let [node, store, work, api, access] = &SHARES;
        match self {
            Self::Node => node,
            Self::Store => store,
            Self::Work => work,
            Self::Api => api,
            Self::Access => access,
        }
    }
}

/// What a line is about. Borrowed for the one line.
#[derive(Clone, Copy, Default)]
pub struct About<'a> {
    /// The run.
    pub run_id: Option<&'a dyn Display>,
    /// The node of its workflow.
    pub node: Option<&'a str>,
    /// The attempt at it.
    pub attempt: Option<u32>,
    /// The request.
    pub request_id: Option<&'a str>,
    /// Whose it is: the name of the token.
    pub token: Option<&'a str>,
    /// What went wrong: a stable code, and a sentence.
    pub error: Option<(&'a str, &'a str)>,
    /// The answer's status, and the microseconds it took.
    pub answer: Option<(u16, u64)>,
    /// The microseconds that something else took.
    pub took_us: Option<u64>,
}

impl std::fmt::Debug for About<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("About").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static JSON: AtomicBool = AtomicBool::new(false);
static QUEUE: ArcSwapOption<Sender<String>> = ArcSwapOption::const_empty();

/// From now on lines look like this.
pub fn configure(settings: Settings) {
    let json = match settings.format {
        Format::Auto => !std::io::stderr().is_terminal(),
        Format::Text => false,
        Format::Json => true,
    };
    JSON.store(json, Ordering::Relaxed);
    set_level(settings.level);
}

/// From now on lines above this level are left away.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// From now on lines go to this queue (`None`: to standard error at once).
pub fn attach(queue: Option<Sender<String>>) {
    QUEUE.store(queue.map(std::sync::Arc::new));
}

/// Are lines of this level wanted?
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Something of the node itself that somebody should look at.
pub fn warn(target: Target, message: Arguments<'_>) {
    line(Level::Warn, target, &About::default(), message);
}

/// Something of the node itself that is good to know.
pub fn info(target: Target, message: Arguments<'_>) {
    line(Level::Info, target, &About::default(), message);
}

/// One line, when its level is wanted and its target has not written too many.
pub fn line(level: Level, target: Target, about: &About<'_>, message: Arguments<'_>) {
    if !enabled(level) {
        return;
    }
    let now = SystemClock.now();
    let Some(left_out) = target.share().take(now) else { return };
    write_out(target, shape((level, target, now), (about, left_out), message));
}

/// Says of every target how many lines were left out since its last one.
pub fn tell_left_out() {
    for target in TARGETS {
        let left_out = target.share().left_out.swap(0, Ordering::Relaxed);
        if left_out > 0 {
            let head = (Level::Warn, target, SystemClock.now());
            let said = shape(head, (&About::default(), left_out), format_args!("lines were left out"));
            write_out(target, said);
        }
    }
}

fn write_out(target: Target, line: String) {
    match &*QUEUE.load() {
        Some(queue) => {
            if queue.send(line).is_err() {
                target.share().left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Nobody can be told that standard error is closed.
        None => drop(std::io::stderr().write_all(line.as_bytes())),
    }
}

type Head = (Level, Target, Timestamp);

fn shape(head: Head, about: (&About<'_>, u64), message: Arguments<'_>) -> String {
    let mut message = message.to_string();
    if message.len() > limits::LOG_MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(limits::LOG_MESSAGE_BYTES_MAX));
        message.push_str("...");
    }
    if JSON.load(Ordering::Relaxed) { json(head, about, &message) } else { text(head, about, &message) }
}

fn json((level, target, now): Head, (about, left_out): (&About<'_>, u64), message: &str) -> String {
    let (level, target) = (level.as_str(), target.as_str());
    let mut line = format!(
        "{{\"ts\":\"{now}\",\"level\":\"{level}\",\"target\":\"{target}\",\"msg\":{}",
        Quoted(message)
    );
    let run_id = about.run_id.map(|run_id| run_id.to_string());
    for (name, value) in [
        ("run_id", run_id.as_deref()),
        ("node", about.node),
        ("request_id", about.request_id),
        ("token", about.token),
    ] {
        if let Some(value) = value {
            let _ = write!(line, ",\"{name}\":{}", Quoted(value));
        }
    }
    if let Some(attempt) = about.attempt {
        let _ = write!(line, ",\"attempt\":{attempt}");
    }
    if let Some((status, took_us)) = about.answer {
        let _ = write!(line, ",\"status\":{status},\"duration_us\":{took_us}");
    }
    if let Some(took_us) = about.took_us {
        let _ = write!(line, ",\"duration_us\":{took_us}");
    }
    if let Some((code, message)) = about.error {
        let _ = write!(line, ",\"error\":{{\"type\":{},\"message\":{}}}", Quoted(code), Quoted(message));
    }
    if left_out > 0 {
        let _ = write!(line, ",\"left_out\":{left_out}");
    }
    line.push_str("}\n");
    line
}

fn text((level, _, _): Head, (about, left_out): (&About<'_>, u64), message: &str) -> String {
    let word = match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
    };
    // A line stays one line, whatever a client has sent.
    let mut line = format!("aobd: {word}{}", message.replace(char::is_control, " "));
    if let Some((status, took_us)) = about.answer {
        let _ = write!(line, " {status} {took_us}us");
    }
    if let Some(took_us) = about.took_us {
        let _ = write!(line, " {took_us}us");
    }
    if let Some((code, message)) = about.error {
        let _ = write!(line, " {code}: {}", message.replace(char::is_control, " "));
    }
    if let Some(run_id) = about.run_id {
        let _ = write!(line, " run_id={run_id}");
    }
    for (name, value) in [("node", about.node), ("request_id", about.request_id), ("token", about.token)] {
        if let Some(value) = value {
            let _ = write!(line, " {name}={value}");
        }
    }
    if let Some(attempt) = about.attempt {
        let _ = write!(line, " attempt={attempt}");
    }
    if left_out > 0 {
        let _ = write!(line, " left_out={left_out}");
    }
    line.push('\n');
    line
}

/// Text as JSON.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&serde_json::to_string(self.0).unwrap_or_else(|_| String::from("\"\"")))
    }
}

/// The lines of one target in this second.
#[derive(Debug)]
struct Share {
    second: AtomicU64,
    lines: AtomicU64,
    left_out: AtomicU64,
}

impl Share {
    const fn new() -> Self {
        Self { second: AtomicU64::new(0), lines: AtomicU64::new(0), left_out: AtomicU64::new(0) }
    }

    /// May a line be written now? Then how many were left out before it. Two threads at the turn of a second may let one
    /// line more through, or count one less: nobody minds.
    fn take(&self, now: Timestamp) -> Option<u64> {
        let second = now.as_millis() / 1_000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.lines.store(0, Ordering::Relaxed);
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) >= limits::LOG_LINES_PER_SECOND_MAX {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(1_517_966_773_840_999);

    // F329, F350
    #[test]
    fn a_line_is_json_with_its_context_and_its_error() {
        let about = About {
            run_id: Some(&"run_1"),
            node: Some("each[3].score"),
            attempt: Some(2),
            request_id: Some("r\"1"),
            token: Some("ci"),
            error: Some(("storage_failed", "disk\nfull")),
            answer: Some((503, 17)),
            took_us: None,
        };
        let line = json((Level::Warn, Target::Api, NOW), (&about, 7), "a \"quoted\"\n\u{1}line");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "ts": "2018-02-07T01:26:13.840Z", "level": "warn", "target": "api", "msg": "a \"quoted\"\n\u{1}line",
            "run_id": "run_1", "node": "each[3].score", "attempt": 2, "request_id": "r\"1", "token": "ci",
            "status": 503, "duration_us": 17, "left_out": 7,
            "error": {"type": "storage_failed", "message": "disk\nfull"},
        });
        assert_eq!(value, expected);
        let line = text((Level::Warn, Target::Api, NOW), (&about, 0), "a\nb\u{1b}[31m");
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.starts_with("aobd: warning: a b [31m 503") && !line.contains('\u{1b}'), "{line}");
    }

    // F349
    #[test]
    fn a_line_knows_nothing_of_the_one_before_it() {
        let about = About { request_id: Some("mine"), token: Some("me"), ..About::default() };
        let _ = json((Level::Info, Target::Api, NOW), (&about, 0), "one");
        let line = json((Level::Info, Target::Api, NOW), (&About::default(), 0), "two");
        assert!(!line.contains("mine") && !line.contains("me\""), "{line}");
    }

    #[test]
    fn a_target_that_writes_too_much_is_cut_short_and_the_rest_counted() {
        let share = Share::new();
        let most = limits::LOG_LINES_PER_SECOND_MAX;
        let taken = (0..most + 5).filter(|_| share.take(NOW).is_some()).count();
        assert_eq!(taken as u64, most);
        let later = NOW.saturating_add(std::time::Duration::from_secs(1));
        assert_eq!((share.take(later), share.take(later)), (Some(5), Some(0)));
    }
}
