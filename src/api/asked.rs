//! Streams that are asked for on connections of the fanout cores ([`Asked`]).
//!
//! At most [`limits::STREAMS_ASKED_MAX`] are answered at once; further ones wait in the queue, and when that is full the fanout
//! core refuses.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use http::request::Parts;
use tokio::sync::Semaphore;

use super::request::Incoming;
use super::respond::Body;
use super::services::Services;
use super::{answer, no_route, request_id};
use crate::limits;
use crate::queue::Receiver;
use crate::wire::asked::{Asked, Opened, is_stream};
use std::net::IpAddr;

/// Answers them as long as the core runs.
pub async fn answer_streams(services: Rc<Services>, mut asked: Receiver<Asked>) {
    let room = Arc::new(Semaphore::new(limits::STREAMS_ASKED_MAX));
    loop {
        poll_fn(|context| asked.poll_ready(context)).await;
        while let Some(Asked { head, peer, answer }) = asked.try_recv() {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let services = services.clone();
            crate::io::spawn_local(async move {
                answer(opened(&services, head, peer).await);
                drop(permit);
            });
        }
    }
}

/// Opens the stream that this `GET` is about.
pub(super) async fn opened(services: &Services, mut head: Parts, peer: IpAddr) -> Opened {
    if !is_stream(head.uri.path()) {
        return Err(no_route(head.uri.path()));
    }
    let request_id = request_id(services, &head);
    let (answered, _) = answer(services, peer, (&mut head, Incoming::None), &request_id).await;
    match answered?.into_body() {
        Body::Stream(_, subscription) => Ok(subscription),
        Body::Whole(_) | Body::Messages(_) => Err(no_route(head.uri.path())),
    }
}
