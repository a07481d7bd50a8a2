//! Whether what we counted is what the node counted. When not, nothing is reported: one of the two is wrong.

use serde::Serialize;

/// Largest share by which the counts may differ.
const DIFFERENCE_MAX: f64 = 0.01;

/// Counts of the whole load, warm-up included, after the node has come to rest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Starts that were acknowledged to us.
    pub(crate) acknowledged: u64,
    /// Runs that the node says it started.
    pub(crate) started: u64,
    /// Runs of this workflow that the node says have ended, in whatever way.
    pub(crate) finished: u64,
}

/// The counts do not fit each other.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    #[error("no start was acknowledged")]
    Nothing,
    #[error(
        "no report: {acknowledged} starts were acknowledged, but the node counted {other} runs {what} ({percent:.1} % \
         apart, allowed is 1 %)"
    )]
    Apart { acknowledged: u64, other: u64, what: &'static str, percent: f64 },
    #[error(
        "no report: the model gave {given} answers by its own account, but the node counted {other} {what} \
         ({percent:.1} % apart, allowed is 1 %)"
    )]
    Answers { given: u64, other: u64, what: &'static str, percent: f64 },
}

impl Counts {
    /// The larger of the two differences, as a share.
    ///
    /// # Errors
    /// Nothing was counted, or a difference is over 1 %.
    pub(crate) fn reconcile(&self) -> Result<f64, Error> {
        if self.acknowledged == 0 {
            return Err(Error::Nothing);
        }
        let mut largest = 0.0_f64;
        for (other, what) in [(self.started, "started"), (self.finished, "finished")] {
            let apart = self.acknowledged.abs_diff(other) as f64 / self.acknowledged as f64;
            if apart > DIFFERENCE_MAX {
                let acknowledged = self.acknowledged;
                return Err(Error::Apart { acknowledged, other, what, percent: apart * 100.0 });
            }
            largest = largest.max(apart);
        }
        Ok(largest)
    }
}

/// Compares the answers that a model says it has `given` with what the node counted: calls that succeeded, and runs of one answer each.
///
/// # Errors
/// There was no answer, or a difference is over 1 %.
pub(crate) fn answers(given: u64, calls: u64, runs: u64) -> Result<(), Error> {
    if given == 0 {
        return Err(Error::Nothing);
    }
    for (other, what) in [(calls, "calls that succeeded"), (runs, "runs finished")] {
        let apart = given.abs_diff(other) as f64 / given as f64;
        if apart > DIFFERENCE_MAX {
            return Err(Error::Answers { given, other, what, percent: apart * 100.0 });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_within_one_percent_are_accepted_and_others_refused() {
        let counts = |acknowledged, started, finished| Counts { acknowledged, started, finished }.reconcile();
        assert_eq!(counts(1_000, 1_000, 1_000), Ok(0.0));
        assert_eq!(counts(1_000, 1_010, 990), Ok(0.01));
        for (started, finished) in [(1_011, 1_000), (1_000, 989), (989, 1_000), (0, 1_000), (1_000, 0)] {
            assert!(
                matches!(counts(1_000, started, finished), Err(Error::Apart { .. })),
                "{started} {finished}"
            );
        }
        assert_eq!(counts(0, 0, 0), Err(Error::Nothing));
    }

    #[test]
    fn answers_of_a_model_are_compared_with_calls_and_runs() {
        assert_eq!((answers(1_000, 1_000, 1_000), answers(1_000, 1_010, 990)), (Ok(()), Ok(())));
        for (calls, runs) in [(1_011, 1_000), (1_000, 989), (0, 1_000), (1_000, 0)] {
            assert!(matches!(answers(1_000, calls, runs), Err(Error::Answers { .. })), "{calls} {runs}");
        }
        assert_eq!(answers(0, 0, 0), Err(Error::Nothing));
    }
}
