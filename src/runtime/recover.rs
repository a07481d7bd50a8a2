//! Bringing a shard back before it serves: read its log, fold it, put finished runs into the index.
