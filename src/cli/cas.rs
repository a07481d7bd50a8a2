//! `aob cas`: contents by their hash, verified here too before a byte is printed.

use clap::Subcommand;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::output::Output;
use crate::client::{Call, Client, percent_encoded};
use crate::model::kept;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Print a content: what `{"$cas": ...}` stands for, or a registered document
    Get {
        /// sha256:...
        hash: String,
    },
    /// Say how large a content is, and how many runs refer to it
    Stat {
        /// sha256:...
        hash: String,
    },
}

impl Verb {
    pub(super) async fn execute(self, mut client: Client, output: &mut Output) -> Result<(), Error> {
        match self {
            Self::Get { hash } => get(&mut client, &hash, output).await,
            Self::Stat { hash } => {
                let headers = client.head(path(&hash)).await?;
                let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
                let (bytes, references) = (number("content-length"), number("aob-references"));
                if !output.is_table() {
                    return output.document(&json!({"hash": hash, "bytes": bytes, "references": references}));
                }
                let shown = |number: Option<u64>| number.map_or_else(|| "-".into(), |n| n.to_string());
                output.line(&format!("{hash}  {} bytes  {} runs", shown(bytes), shown(references)))
            }
        }
    }
}

fn path(hash: &str) -> String {
    format!("/v1/cas/{}", percent_encoded(hash))
}

/// Prints the very bytes with this hash.
pub(super) async fn get(client: &mut Client, hash: &str, output: &mut Output) -> Result<(), Error> {
    let (_, bytes) = client.call(Call::get(path(hash))).await?;
    let found = kept::name(&Sha256::digest(&bytes).into());
    if found != hash {
        return Err(Error::Invalid(format!("the node answered with {found} for {hash}")));
    }
    output.bytes(&bytes)
}
