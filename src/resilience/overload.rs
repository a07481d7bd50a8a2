//! What an answer says of the service that gave it: that it works, that it fails, or that it works and has too much to do.
//!
//! | status | says | the breaker |
//! | --- | --- | --- |
//! | 429, 529; 503 with `Retry-After` | it has too much to do, and may say when to come back | counts nothing: whoever was refused waits as told |
//! | any other from 500 on | it fails | counts a failure |
//! | any other | it answers | counts a success |
//!
//! A service that sheds load answers the others, and leaving it alone for a minute would refuse those too (F364). Half open, the next
//! call tries it out when the service said, and not before; that is no success, and no failure either. A pure function.

use std::time::Duration;

use super::breaker::Ended;

/// By the status of an answer, and what it says of when to come back.
pub fn weigh(status: u16, retry_after: Option<Duration>) -> Ended {
    match (status, retry_after) {
        (429 | 529, _) | (503, Some(_)) => overloaded(retry_after),
        (500.., _) => Ended::Failed,
        _ => Ended::Succeeded,
    }
}

/// It has too much to do.
pub fn overloaded(retry_after: Option<Duration>) -> Ended {
    let wait_us = retry_after.map_or(0, |wait| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX));
    Ended::Overloaded { wait_us }
}

#[cfg(test)]
mod tests {
    use super::super::breaker::{Breaker, Config, Open, State};
    use super::*;

    const SECOND: u64 = 1_000_000;

    // F364, F373
    #[test]
    fn what_a_status_says_of_its_service() {
        let after = Some(Duration::from_secs(7));
        let wait = |seconds: u64| Ended::Overloaded { wait_us: seconds * SECOND };
        for (status, retry_after, said) in [
            (200, None, Ended::Succeeded),
            (301, None, Ended::Succeeded),
            (404, None, Ended::Succeeded),
            (404, after, Ended::Succeeded),
            (408, None, Ended::Succeeded),
            (429, None, wait(0)),
            (429, after, wait(7)),
            (500, None, Ended::Failed),
            (500, after, Ended::Failed),
            (502, after, Ended::Failed),
            (503, None, Ended::Failed),
            (503, after, wait(7)),
            (504, None, Ended::Failed),
            (529, None, wait(0)),
            (529, after, wait(7)),
            (599, None, Ended::Failed),
        ] {
            assert_eq!(weigh(status, retry_after), said, "{status} {retry_after:?}");
        }
        assert_eq!(overloaded(Some(Duration::MAX)), Ended::Overloaded { wait_us: u64::MAX });
    }

    /// Statuses, and when to come back, in seconds.
    type Answers<'a> = &'a [(u16, Option<u64>)];

    /// What a history of answers, one a second, makes of a breaker.
    fn after(answers: Answers<'_>) -> (Breaker, u64) {
        let (config, mut breaker, mut now_us) = (Config::default(), Breaker::default(), 0);
        for (status, retry_after) in answers {
            let ended = weigh(*status, retry_after.map(Duration::from_secs));
            if let Ok(ticket) = breaker.ask(&config, now_us) {
                breaker.ended(&config, (ticket, ended), now_us);
            }
            now_us += SECOND;
        }
        (breaker, now_us)
    }

    // F364, F366: five failures open it, as ever; no number of refusals does, nor do they make five of four.
    #[test]
    fn a_burst_of_refusals_opens_nothing_and_hides_no_failure() {
        let vectors: [(Answers<'_>, State); 7] = [
            (&[(500, None); 4], State::Closed),
            (&[(500, None); 5], State::Open),
            (&[(429, Some(1)); 100], State::Closed),
            (&[(529, None); 100], State::Closed),
            (&[(503, Some(1)); 100], State::Closed),
            (&[(500, None), (500, None), (529, None), (500, None), (429, None), (500, None)], State::Closed),
            (
                &[(500, None), (500, None), (529, None), (500, None), (429, None), (500, None), (500, None)],
                State::Open,
            ),
        ];
        for (answers, state) in vectors {
            let (breaker, now_us) = after(answers);
            assert_eq!(breaker.state(now_us), state, "{answers:?}");
        }
    }

    // F366: any failure opens it again; a refusal holds the next call up as long as it says, a minute at most.
    #[test]
    fn half_open_a_refusal_is_neither_success_nor_failure_and_the_next_call_waits_as_told() {
        let config = Config::default();
        let (opened, _) = after(&[(500, None); 5]);
        for (retry_after, held_us) in [(None, 0), (Some(3), 3 * SECOND), (Some(3_600), 60 * SECOND)] {
            let (mut breaker, now_us) = (opened, 70 * SECOND);
            let ticket = breaker.ask(&config, now_us).unwrap();
            let ended = weigh(529, retry_after.map(Duration::from_secs));
            breaker.ended(&config, (ticket, ended), now_us);
            assert_eq!(breaker.state(now_us), State::HalfOpen);
            if held_us > 0 {
                let refused = Open { failed_us: 4 * SECOND, retry_after_us: held_us };
                assert_eq!(breaker.ask(&config, now_us), Err(refused));
            }
            let later = now_us + held_us;
            for state in [State::HalfOpen, State::Closed] {
                let ticket = breaker.ask(&config, later).unwrap();
                breaker.ended(&config, (ticket, weigh(200, None)), later);
                assert_eq!(breaker.state(later), state, "two successes close it");
            }
        }
    }
}
