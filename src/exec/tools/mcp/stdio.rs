//! A tool server that is a program: started with an environment of its own, watched, and killed with all it started when its
//! connection goes.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, BufReader, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::trouble::Trouble;
use crate::exec::secret::Redactor;
use crate::exec::tools::{TETHER, result};
use crate::limits;
use crate::telemetry::log::{self, Target};
use crate::time::{Clock as _, SystemClock};

/// What is started.
pub(super) struct Order<'o> {
    /// The program and its arguments.
    pub(super) command: &'o [String],
    pub(super) environment: Vec<(String, String)>,
    pub(super) directory: Option<&'o Path>,
}

/// A program that runs, the first of a process group of its own.
pub(super) struct Child(tokio::process::Child);

/// How it is spoken to.
pub(super) struct Pipes {
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    pub(super) errors: ChildStderr,
}

/// What a program gets of the node's own environment.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

/// Starts a program.
pub(super) fn start(order: &Order<'_>, launcher: Option<&Path>) -> io::Result<(Child, Pipes)> {
    let (program, arguments) =
        order.command.split_first().ok_or_else(|| io::Error::other("its command is empty"))?;
    let mut command = match launcher {
        Some(launcher) => {
            let mut command = Command::new(launcher);
            command.args([TETHER, &std::process::id().to_string(), program]);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments).env_clear();
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(order.environment.iter().map(|(name, value)| (name, value)));
    if let Some(directory) = order.directory {
        command.current_dir(directory);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A signal from a terminal is the node's to answer.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(input), Some(output), Some(errors)) = pipes else {
        return Err(io::Error::other("it has no pipes"));
    };
    Ok((Child(child), Pipes { input, output, errors }))
}

impl Drop for Child {
    fn drop(&mut self) {
        // Not waited for yet, so its id is nobody else's.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

/// What a program writes, up to the first line that is too long, or to the byte that is one too many; then it ends.
pub(super) struct Watched<R> {
    inner: R,
    trouble: Arc<Trouble>,
    line_bytes: usize,
    ended: bool,
}

impl<R> Watched<R> {
    pub(super) fn new(inner: R, trouble: Arc<Trouble>) -> Self {
        Self { inner, trouble, line_bytes: 0, ended: false }
    }

    /// Do these bytes pass?
    fn pass(&mut self, bytes: &[u8]) -> bool {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        self.line_bytes += parts.next().map_or(0, <[u8]>::len);
        let mut longest = self.line_bytes;
        for part in parts {
            self.line_bytes = part.len();
            longest = longest.max(part.len());
        }
        if longest > limits::TOOL_SERVER_MESSAGE_BYTES_MAX {
            self.trouble.was_too_large();
            return false;
        }
        self.trouble.came(bytes.len())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        if !self.pass(new) {
            self.ended = true;
            buffer.set_filled(before);
        }
        Poll::Ready(Ok(()))
    }
}

/// Puts what a program says of itself into the node's log: so much of a line, so many lines a second.
pub(super) fn log_errors(errors: ChildStderr, name: Arc<str>, redactor: Rc<Redactor>) {
    crate::io::spawn_local(async move {
        let mut reader = BufReader::new(errors);
        let (mut second, mut lines, mut left_out) = (0, 0, 0_u64);
        while let Ok(Some(line)) = next_line(&mut reader).await {
            let now = SystemClock.monotonic_us() / 1_000_000;
            if now != second {
                if left_out > 0 {
                    log::info(Target::Node, format_args!("tool server {name}: {left_out} lines left out"));
                }
                (second, lines, left_out) = (now, 0, 0);
            }
            lines += 1;
            if lines > limits::TOOL_SERVER_LINES_PER_SECOND_MAX {
                left_out += 1;
                continue;
            }
            let line = told(&line, &redactor);
            log::info(Target::Node, format_args!("tool server {name}: {}", printable(&line)));
        }
    });
}

/// As much of a line as is told. Secrets go first, so that no cut leaves a part of one.
fn told(line: &str, redactor: &Redactor) -> String {
    result::cut(&redactor.text(line), limits::TOOL_SERVER_LINE_BYTES_MAX).to_owned()
}

fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Bytes of a line that are looked at: what is told, and a secret that begins at its end, in the longest of its spellings.
const LOOKED_AT_BYTES_MAX: usize = limits::TOOL_SERVER_LINE_BYTES_MAX + 3 * limits::SECRET_BYTES_MAX;

/// The next line, as much of it as is looked at; `None` at the end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (part, used) = match end {
            Some(at) => (bytes.get(..at).unwrap_or_default(), at + 1),
            None => (bytes, bytes.len()),
        };
        let room = LOOKED_AT_BYTES_MAX.saturating_sub(line.len());
        line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // F411
    #[tokio::test]
    async fn a_line_that_is_cut_leaves_no_part_of_a_secret() {
        let mut redactor = Redactor::default();
        redactor.add("cAnary-0123456789");
        for before in [0, 100, limits::TOOL_SERVER_LINE_BYTES_MAX - 5, limits::TOOL_SERVER_LINE_BYTES_MAX + 5]
        {
            let said = format!("{}cAnary-0123456789 {}\nnext\n", "x".repeat(before), "y".repeat(200_000));
            let mut reader = BufReader::new(said.as_bytes());
            let line = told(&next_line(&mut reader).await.unwrap().unwrap(), &redactor);
            assert!(!line.contains("cAn") && line.len() <= limits::TOOL_SERVER_LINE_BYTES_MAX, "{line}");
            assert_eq!(next_line(&mut reader).await.unwrap().as_deref(), Some("next"));
            assert_eq!(next_line(&mut reader).await.unwrap(), None);
        }
    }
}
