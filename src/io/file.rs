//! Files of the journal: direct through the ring, or plain through a helper thread.
