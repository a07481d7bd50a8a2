//! Faults of the disk, made below the node: power cuts, failed syncs, no room, stalls, damage (RELIABILITY 3.B). Interposers
//! and injected system calls do nothing to io_uring, so it is file systems that are broken here.

mod clients;
mod cuts;
mod damage;
mod failing;
mod full;
pub mod mount;
#[cfg(feature = "failpoints")]
pub mod planted;
mod slow;
