//! The node: configuration, start, phases, shutdown.

pub mod plan;
pub mod plane;
pub mod shutdown;
pub mod startup;
pub mod thread;
pub mod topology;
pub mod watchdog;
