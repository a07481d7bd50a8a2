//! What the API reads of the store: runs that are over, the index, documents, contents.
//!
//! A store that fails, or hangs, is left alone like any service (`exec::breakers`): while its breaker is open a read is answered
//! 503 `store_unavailable` at once, with the time after which one read tries it out, and no further threads are held up by it. A
//! read has [`limits::STORE_READ_SECONDS_MAX`]; the thread that hangs is left to hang. Nothing is decided here and nothing lost: the
//! journal refuses work by itself, reads change nothing, and errands of runs ask until they are answered.

use std::time::Duration;

use super::ports::StorageError;
use super::services::{Services, blocking};
use crate::exec::breakers::{Asked, Refused, Standing, store};
use crate::failpoint;
use crate::limits;
use crate::resilience::State;
use crate::resilience::breaker::Ended;
use crate::wire::problem::Problem;

const CODE: &str = "store_unavailable";

impl Services {
    /// Reads the store, on a blocking thread.
    pub(super) async fn read<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send + 'static,
    ) -> Result<T, Box<Problem>>
    where
        T: Send + 'static,
        E: Into<Box<Problem>> + Send + 'static,
    {
        let mut asked = self.executors.http.breakers().ask(&store(), None).map_err(left_alone)?;
        let work = move || match failpoint::fails("store::read") {
            true => Err(StorageError("the failpoint store::read".into()).into()),
            false => work().map_err(Into::into),
        };
        let most = Duration::from_secs(limits::STORE_READ_SECONDS_MAX);
        let answer = match tokio::time::timeout(most, blocking(work)).await {
            Ok(answer) => answer.flatten(),
            Err(_) => {
                let detail =
                    format!("the store has not answered within {most:?} (limit store_read_seconds_max)");
                Err(Problem::unavailable(CODE, detail))
            }
        };
        tell(&mut asked, &answer);
        answer
    }

    /// How the store does; `None` when it has not failed since the node started.
    pub(super) fn store(&self) -> Option<Standing> {
        let (workspace, _) = store();
        self.executors.http.breakers().standings(Some(&workspace)).pop()
    }
}

fn tell<T>(asked: &mut Asked, answer: &Result<T, Box<Problem>>) {
    let failed = |problem: &Problem| matches!(&*problem.code, "storage_failed" | CODE);
    let is_failed = answer.as_ref().is_err_and(|problem| failed(problem));
    asked.ended(if is_failed { Ended::Failed } else { Ended::Succeeded });
}

fn left_alone(refused: Refused) -> Box<Problem> {
    let (Refused::Open(failure) | Refused::Tried(failure, _)) = refused;
    let mut problem = Problem::unavailable(CODE, failure.message.to_string());
    let after = failure.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    problem.retry_after_ms = after.or(problem.retry_after_ms);
    problem
}

/// For whoever asks whether the node is ready; nothing while the store answers.
pub(super) fn told(standing: Option<&Standing>) -> Option<String> {
    let standing = standing.filter(|standing| standing.state != State::Closed)?;
    let millis = standing.retry_after.as_millis();
    let at = standing.last_failure_at;
    Some(format!("the store fails ({CODE}): last at {at}; it is tried again in {millis} ms"))
}
