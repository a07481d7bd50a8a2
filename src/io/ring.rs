//! glommio: executors of the runner plane.
