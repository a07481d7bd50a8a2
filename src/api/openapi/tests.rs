//! The committed description is the one that the types make.

use super::{DOCUMENT, described};

#[test]
fn the_committed_description_is_the_one_of_the_types() {
    let made = format!("{:#}\n", described::document());
    if made != DOCUMENT {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        let blessing = std::env::var("AOB_TIDY_BLESS").is_ok_and(|value| value == "1");
        assert!(blessing, "docs/openapi.json is stale; run: AOB_TIDY_BLESS=1 cargo test --lib openapi");
        std::fs::write(place, made).unwrap();
    }
}
