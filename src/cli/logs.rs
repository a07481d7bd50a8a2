//! `aob logs stream RUN`: what a run does, a line an event, as it happens; taken up again where a connection broke.

use super::Error;
use super::output::Output;
use super::run::follow;
use crate::client::Client;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Print what happens in a run until it ends
    Stream {
        /// The run's id
        run: String,
        /// Only of this node, and of those inside it
        #[arg(long)]
        node: Option<String>,
        /// Only events after this number
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
}

impl Verb {
    pub(super) async fn execute(self, client: Client, output: &mut Output) -> Result<(), Error> {
        let Self::Stream { run, node, after } = self;
        follow(client, &run, (after, node.as_deref()), output).await.map(drop)
    }
}
