//! The token: what travels between cores on behalf of a run (`docs/formats/token.md`).
