//! The vocabulary of the node: ids, values, documents, events, failures. Plain data that everyone may name.
//!
//! Nothing here evaluates, does I/O or reads a clock.

pub mod admission;
pub mod agent;
pub mod approval;
pub mod batch;
pub mod budget;
pub mod credential;
mod duration;
pub mod event;
pub mod failure;
pub mod filter;
pub mod id;
pub mod kept;
pub mod letter;
pub mod money;
pub mod node;
pub mod patch;
pub mod retention;
pub mod room;
pub mod run;
pub mod run_key;
pub mod ticket;
pub mod token;
pub mod tools;
pub mod usage;
pub mod value;
pub mod webhook;
pub mod workflow;
pub mod workspace;

pub use admission::{Admission, Claim, Concurrency, Rate};
pub use duration::parse_duration;
pub use event::{Event, EventBody, Place};
pub use failure::{Class, Failure};
pub use filter::RunFilter;
pub use id::{Partition, RunId, Seq};
pub use kept::{Content, ContentHash, Kept};
pub use retention::Class as RetentionClass;
pub use room::{Lack, NoRoom};
pub use run::{FrameRef, Mode, Priority, RunSummary, Status};
pub use run_key::RunKey;
pub use ticket::Ticket;
pub use value::{Map, Value};
pub use workspace::Workspace;
