//! The way from a fanout core to the control cores: a stream is asked for as over HTTP, and comes back open or refused.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::oneshot;

use crate::limits;
use crate::queue::Sender;
use crate::wire::asked::{Asked, Opened};
use crate::wire::problem::Problem;

/// See the module. The control cores are asked by turns.
#[derive(Clone, Debug)]
pub struct Asking {
    controls: Vec<Sender<Asked>>,
    next: Cell<usize>,
}

impl Asking {
    /// The way to these.
    pub fn new(controls: Vec<Sender<Asked>>) -> Self {
        Self { controls, next: Cell::new(0) }
    }

    /// Asks for the stream that `GET` with this head is about.
    ///
    /// # Errors
    /// Whatever HTTP would have answered instead; 503 `streams_unavailable` when nobody answers in time.
    pub async fn open(&self, head: Parts, peer: IpAddr) -> Opened {
        let (sender, answered) = oneshot::channel();
        let answer = Box::new(move |opened| {
            // Whoever asked may be gone: the subscription is dropped, and the hub told.
            let _ = sender.send(opened);
        });
        self.send(Asked { head, peer, answer })?;
        let within = Duration::from_secs(limits::STREAM_OPEN_SECONDS_MAX);
        match tokio::time::timeout(within, answered).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(_)) | Err(_) => Err(unavailable("no control core answered in time")),
        }
    }

    fn send(&self, mut asked: Asked) -> Result<(), Box<Problem>> {
        for _ in 0..self.controls.len() {
            let at = self.next.get();
            self.next.set(at.wrapping_add(1));
            let Some(control) = self.controls.get(at % self.controls.len()) else { break };
            match control.send(asked) {
                Ok(()) => return Ok(()),
                Err(back) => asked = back,
            }
        }
        Err(unavailable("too many streams are being opened").limit("streams_asked_max"))
    }
}

fn unavailable(detail: &str) -> Box<Problem> {
    Problem::unavailable("streams_unavailable", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{FullPolicy, bounded};

    fn head() -> Parts {
        http::Request::get("/v1/runs/run_1/events").body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn the_control_cores_are_asked_by_turns_and_one_that_is_full_is_passed_over() {
        let (first, mut at_first) = bounded("first", 1, FullPolicy::RefuseCaller);
        let (second, mut at_second) = bounded("second", 4, FullPolicy::RefuseCaller);
        let asking = Asking::new(vec![first, second]);
        let peer = IpAddr::from([127, 0, 0, 1]);
        let asked =
            |asking: &Asking| asking.send(Asked { head: head(), peer, answer: Box::new(drop) }).is_ok();
        assert_eq!([(); 5].map(|()| asked(&asking)), [true; 5]);
        assert!(!asked(&asking), "both are full");
        assert!(at_first.try_recv().is_some() && at_first.try_recv().is_none());
        assert_eq!(std::iter::from_fn(|| at_second.try_recv()).count(), 4);
    }

    #[tokio::test]
    async fn what_is_answered_comes_back_and_an_answer_that_is_dropped_is_503() {
        let (control, mut at_control) = bounded("control", 4, FullPolicy::RefuseCaller);
        let asking = Asking::new(vec![control]);
        let answering = async {
            tokio::task::yield_now().await;
            let asked = at_control.try_recv().unwrap();
            (asked.answer)(Err(Problem::new(404, "run_not_found", "there is none")));
            tokio::task::yield_now().await;
            drop(at_control.try_recv().unwrap());
        };
        let asker = async {
            let peer = IpAddr::from([127, 0, 0, 1]);
            let refused = asking.open(head(), peer).await.unwrap_err();
            assert_eq!((refused.status, &*refused.code), (404, "run_not_found"));
            let refused = asking.open(head(), peer).await.unwrap_err();
            assert_eq!((refused.status, &*refused.code), (503, "streams_unavailable"));
        };
        tokio::join!(asker, answering);
    }
}
