//! A node that shares its store with nobody, in builds that know no store but the data directory: there is no [`Member`].

use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::front::HopKey;
use crate::wire::node::ClusterInfo;

/// There is none.
pub(super) enum Standing {}

impl Standing {
    pub(super) fn is_live(&self) -> bool {
        match *self {}
    }

    pub(super) fn watch(&self, _: impl Fn() -> bool + Send + Sync + 'static) {
        match *self {}
    }

    pub(super) fn is_leaving(&self) -> bool {
        match *self {}
    }

    pub(super) fn hop_key(&self) -> &HopKey {
        match *self {}
    }

    pub(super) fn info(&self) -> ClusterInfo {
        match *self {}
    }
}

/// There is none.
pub(super) struct Member {
    pub(super) standing: Arc<Standing>,
    pub(super) key: [u8; 32],
}

impl Member {
    pub(super) fn serves(&self, _: SocketAddr) {
        match *self.standing {}
    }

    pub(super) fn listens(&mut self) {
        match *self.standing {}
    }

    pub(super) async fn lost(&self) {
        match *self.standing {}
    }

    pub(super) async fn told_to_hand_over(&self) {
        match *self.standing {}
    }

    pub(super) fn leave(&mut self) {
        match *self.standing {}
    }

    pub(super) fn give_up(self) {
        match *self.standing {}
    }
}
