//! Why a command did not do as asked, and the exit code that says so. The codes are a contract: docs/cli.md lists them.

use crate::client;
use crate::wire::problem::Problem;

/// Why a command did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node said no, or could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// As given.
        path: String,
        /// Why not.
        why: String,
    },
    /// A document or an input is wrong; each line names its place.
    #[error("{0}")]
    Invalid(String),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// The arguments contradict each other.
    #[error("{0}")]
    Usage(String),
    /// The run ended, but not well.
    #[error("run {run_id} {status}{why}")]
    RunFailed {
        /// Which.
        run_id: String,
        /// How it ended.
        status: &'static str,
        /// The failure, when there was one.
        why: String,
    },
    /// The run had not ended when the time was up.
    #[error("run {0} has not ended yet")]
    TimedOut(String),
    /// The run had not ended when the time was up, for a human has to say something first.
    #[error("run {run_id} waits for {node}: a human must decide")]
    Approval {
        /// Which.
        run_id: String,
        /// The node that waits.
        node: String,
    },
    /// The update was taken, and the node that answers it did not do so well.
    #[error("the update was taken, and {node} {state}{why}", state = if state == "failed" { state.clone() } else { format!("was {state}") })]
    UpdateFailed {
        /// The node.
        node: String,
        /// How it ended.
        state: String,
        /// The failure, when there was one.
        why: String,
    },
    /// The update was taken; the node that answers it had not settled when the time was up.
    #[error("run {run_id} has taken the update; {node} has not answered yet")]
    Unanswered {
        /// Which run.
        run_id: String,
        /// The node.
        node: String,
    },
    /// The command had not done its work when the time was up.
    #[error("not done within {0} s (--timeout); what the node has begun goes on")]
    NotDone(u64),
    /// The user pressed Ctrl-C.
    #[error("interrupted; what the node has begun goes on")]
    Interrupted,
    /// Output could not be written.
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

impl Error {
    /// The exit code: 1 error, 2 usage, 3 not found, 4 auth, 5 conflict, 6 unavailable, 7 run failed, 8 timed out,
    /// 9 waits for a human, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::RunFailed { .. } | Self::UpdateFailed { .. } => 7,
            Self::TimedOut(_) | Self::Unanswered { .. } | Self::NotDone(_) => 8,
            Self::Approval { .. } => 9,
            Self::Interrupted => 130,
            Self::Client(
                client::Error::Url { .. }
                | client::Error::Header { .. }
                | client::Error::PlainToken { .. }
                | client::Error::Trust { .. },
            ) => 2,
            Self::Client(client::Error::Unreachable { .. }) => 6,
            Self::Client(client::Error::Refused(problem)) => refused_code(problem),
            Self::Client(_) | Self::File { .. } | Self::Invalid(_) | Self::Write(_) => 1,
        }
    }

    /// The reader of our output went away, which is no error of ours.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

fn refused_code(problem: &Problem) -> u8 {
    match problem.status {
        404 => 3,
        401 | 403 => 4,
        409 => 5,
        408 | 429 | 503 | 504 => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_fail_has_its_exit_code() {
        let text = String::new;
        let refused = |status| Error::Client(client::Error::Refused(Problem::new(status, "x", "y")));
        let unreachable = client::Error::Unreachable { url: text(), why: text() };
        let broken = client::Error::Broken { url: text(), why: text() };
        for (error, wanted) in [
            (Error::Invalid(text()), 1),
            (Error::File { path: text(), why: text() }, 1),
            (Error::Client(broken), 1),
            (refused(422), 1),
            (refused(500), 1),
            (Error::Usage(text()), 2),
            (Error::Client(client::Error::Url { url: text(), why: "" }), 2),
            (Error::Client(client::Error::PlainToken { url: text() }), 2),
            (Error::Client(client::Error::Trust { why: text() }), 2),
            (Error::Client(client::Error::Tls { url: text(), why: text() }), 1),
            (Error::NotFound(text()), 3),
            (refused(404), 3),
            (refused(401), 4),
            (refused(403), 4),
            (refused(409), 5),
            (Error::Client(unreachable), 6),
            (refused(408), 6),
            (refused(429), 6),
            (refused(503), 6),
            (refused(504), 6),
            (Error::RunFailed { run_id: text(), status: "failed", why: text() }, 7),
            (Error::UpdateFailed { node: text(), state: text(), why: text() }, 7),
            (Error::TimedOut(text()), 8),
            (Error::Unanswered { run_id: text(), node: text() }, 8),
            (Error::NotDone(1), 8),
            (Error::Approval { run_id: text(), node: text() }, 9),
            (Error::Interrupted, 130),
        ] {
            assert_eq!(error.exit_code(), wanted, "{error:?}");
        }
    }
}
