//! `aobd demo` and `aobd dev`: the examples, through the node's own API, with a calm view of what happens.
//!
//! The demo is a client of the node it runs beside: it registers, starts and follows over HTTP as anyone would. The run
//! has an idempotency key, so a demo that was killed and is started again on the same directory ends the same run.
