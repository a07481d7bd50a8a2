//! What an error of Redis says, and what is to be done about it: one table.
//!
//! Must hold: whatever the table calls [`Refuse`](Remedy::Refuse) has written nothing. What it does not know is refused too, and
//! said as the server said it.

use redis::{ErrorKind, RedisError};

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing was done, and it passes: ask again in a moment.
    Wait,
    /// Nothing was done: another server is in charge of the key. Ask for the topology, then that one.
    Elsewhere,
    /// Nothing was done: the script is not there. Load it, ask again.
    Load,
    /// Nothing was done, and nothing will be until somebody sees to the server.
    Refuse,
    /// No answer: whether it was done is unknown. Connect again; what is idempotent may be asked again.
    Reconnect,
}

/// Codes of answers, from the sources of Redis 7 and its cluster specification.
const TABLE: [(&str, Remedy); 22] = [
    // It reads its file, or waits for its primary's.
    ("LOADING", Remedy::Wait),
    ("MASTERDOWN", Remedy::Wait),
    // Another script runs for longer than `busy-reply-threshold`.
    ("BUSY", Remedy::Wait),
    // A slot on its way, a cluster in an election.
    ("TRYAGAIN", Remedy::Wait),
    ("CLUSTERDOWN", Remedy::Wait),
    // Fewer good replicas than `min-replicas-to-write`.
    ("NOREPLICAS", Remedy::Wait),
    // What was connected to as primary is a replica now.
    ("READONLY", Remedy::Elsewhere),
    ("MOVED", Remedy::Elsewhere),
    ("ASK", Remedy::Elsewhere),
    // A server that was started again has forgotten its scripts.
    ("NOSCRIPT", Remedy::Load),
    // `maxmemory` with `noeviction`; a script is refused before its first line.
    ("OOM", Remedy::Refuse),
    // Its disk is full, or does not answer: `stop-writes-on-bgsave-error`, an append-only file that failed.
    ("MISCONF", Remedy::Refuse),
    ("NOAUTH", Remedy::Refuse),
    ("WRONGPASS", Remedy::Refuse),
    ("NOPERM", Remedy::Refuse),
    ("DENIED", Remedy::Refuse),
    // Keys of two slots in one request, a key of another type: somebody else writes here.
    ("CROSSSLOT", Remedy::Refuse),
    ("WRONGTYPE", Remedy::Refuse),
    ("NOPROTO", Remedy::Refuse),
    ("EXECABORT", Remedy::Refuse),
    // A replica told its primary's clients to go: a failover is under way.
    ("UNBLOCKED", Remedy::Reconnect),
    ("ERR", Remedy::Refuse),
];

/// What helps against `error`.
pub fn remedy(error: &RedisError) -> Remedy {
    if let Some(code) = error.code() {
        return TABLE.iter().find(|(known, _)| *known == code).map_or(Remedy::Refuse, |(_, remedy)| *remedy);
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::RESP3NotSupported => {
            Remedy::Refuse
        }
        // A broken connection, no answer in time, or an answer that is none: nothing on this connection can be trusted any more.
        _ => Remedy::Reconnect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> RedisError {
        let (code, detail) = line.split_once(' ').unwrap();
        redis::make_extension_error(code.into(), Some(detail.into()))
    }

    // RELIABILITY C7
    #[test]
    fn every_row_of_the_table_is_found_by_its_code_and_what_is_unknown_is_refused() {
        for (code, expected) in TABLE {
            assert_eq!(remedy(&said(&format!("{code} some words"))), expected, "{code}");
        }
        assert_eq!(remedy(&said("NEWS from a later version")), Remedy::Refuse);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(remedy(&RedisError::from(broken)), Remedy::Reconnect);
    }
}
