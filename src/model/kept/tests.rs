//! Random values with shared parts: what is kept is found again by reference, and reads back as it was.

use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::*;

/// Keeps the parts of a value as the content store would.
fn kept(value: &Value, inline_max: usize) -> Arc<Kept> {
    let mut kept = Kept::default();
    for part in parts(value, inline_max) {
        let json = part.to_json();
        let content = Content::of(&part, Sha256::digest(&json).into(), json.len() as u64);
        kept.add(content, part);
    }
    Arc::new(kept)
}

fn compact(kept: &Arc<Kept>, value: &Value) -> Vec<u8> {
    naming(Some(kept), || postcard::to_stdvec(value).unwrap())
}

fn text(letters: usize) -> Value {
    Value::string("x".repeat(letters))
}

#[test]
fn the_innermost_parts_that_are_too_large_are_kept() {
    let (large, small) = (text(1_000), text(10));
    let value = Value::map([("large", large.clone()), ("small", small)]);
    assert_eq!(parts(&value, 500), std::slice::from_ref(&large));
    assert_eq!(parts(&value, 5_000), []);
    // What is left of it is still too large: both are kept, the inner one first.
    let wide = Value::list((0..100).map(|_| text(20)).collect());
    let both = Value::map([("large", large.clone()), ("wide", wide.clone())]);
    assert_eq!(parts(&both, 500), [large, wide]);
    assert_eq!(parts(&Value::Int(1), 0), []);
}

#[test]
fn values_in_values_are_stored_a_few_times_at_most() {
    let mut value = text(600);
    for _ in 0..60 {
        value = Value::list(vec![text(600), value]);
    }
    let bytes: usize = parts(&value, 500).iter().map(size).sum();
    assert!(bytes <= COPIES_MAX * size(&value), "{bytes}");
    let list = Value::list((0..60).map(|_| Value::list(vec![text(20); 30])).collect());
    assert_eq!(parts(&list, 500).len(), 61);
}

#[test]
fn one_value_goes_by_reference_wherever_it_stands_and_one_like_it_does_not() {
    let large = text(1_000);
    let inputs = Value::map([("doc", large.clone())]);
    let kept = kept(&inputs, 100);
    let outputs = Value::map([("copy", Value::list(vec![large, Value::Int(7)]))]);
    let bytes = compact(&kept, &outputs);
    assert!(bytes.len() < 80, "{}", bytes.len());
    assert_eq!(loading(&kept, || postcard::from_bytes::<Value>(&bytes).unwrap()), outputs);
    assert!(compact(&kept, &text(1_000)).len() > 1_000, "built anew");
    // No table, no reference; and none is read where none may be.
    assert!(postcard::to_stdvec(&outputs).unwrap().len() > 1_000);
    assert!(postcard::from_bytes::<Value>(&bytes).is_err());
    let nothing = Arc::new(Kept::default());
    assert!(loading(&nothing, || postcard::from_bytes::<Value>(&bytes)).is_err());
}

#[test]
fn live_and_read_back_a_reference_looks_the_same() {
    for (value, items) in [(text(1_000), ""), (Value::list(vec![Value::Int(1); 300]), ",\"items\":300")] {
        let kept = kept(&value, 100);
        let outputs = Value::map([("a", value.clone())]);
        let live = naming(Some(&kept), || outputs.to_json());
        let bytes = compact(&kept, &outputs);
        let read = showing(|| postcard::from_bytes::<Value>(&bytes).unwrap());
        assert_eq!(live, read.to_json());
        let hash = name(&Sha256::digest(value.to_json()).into());
        let length = value.to_json().len();
        assert_eq!(live, format!("{{\"a\":{{\"$cas\":\"{hash}\",\"bytes\":{length}{items}}}}}"));
        assert_eq!(items_of(&value), items_of(read.get("a").unwrap()));
    }
}

#[test]
fn a_table_lets_go_of_what_nobody_else_has() {
    let value = text(1_000);
    let mut table = Kept::clone(&kept(&value, 100));
    table.prune();
    assert_eq!(table.len(), 1);
    drop(value);
    table.absorb(&Kept::default());
    assert!(table.is_empty());
}

#[test]
fn scopes_end_with_a_panic_and_nest() {
    let value = text(1_000);
    let kept = kept(&value, 100);
    let json = value.to_json();
    let panicked = std::panic::catch_unwind(|| naming(Some(&kept), || panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(value.to_json(), json);
    naming(Some(&kept), || {
        assert_eq!(plainly(|| value.to_json()), json);
        assert_ne!(value.to_json(), json);
    });
    let bytes = compact(&kept, &value);
    let (inner, noted) = noting(|| {
        let shown = showing(|| postcard::from_bytes::<Value>(&bytes).unwrap());
        let _ = postcard::from_bytes::<Value>(&bytes).unwrap();
        shown
    });
    assert!(inner.get("$cas").is_some());
    assert_eq!(noted, [*kept.find(&value).unwrap()]);
}

#[test]
fn a_hash_has_one_name() {
    let hash = Sha256::digest(b"x").into();
    assert_eq!(parse_name(&name(&hash)), Some(hash));
    let upper = name(&hash).to_uppercase();
    for wrong in ["", "sha256:", "sha256:00", &upper, &format!("{} ", name(&hash)), "sha512:00"] {
        assert_eq!(parse_name(wrong), None, "{wrong:?}");
    }
}

/// A value in which parts stand in several places.
fn shared() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (0..300usize).prop_map(text),
        Just(Value::Null),
        "[a-z\"\\\\é]{0,20}".prop_map(Value::string),
    ];
    let value = leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::list),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..6).prop_map(Value::map),
        ]
    });
    prop::collection::vec(value, 1..4).prop_map(|parts| {
        let again = Value::list(parts.clone());
        Value::map([("parts", Value::list(parts)), ("again", again.clone()), ("twice", again)])
    })
}

proptest! {
    #[test]
    fn what_is_written_with_references_reads_back_equal(value in shared(), inline_max in 8..400usize) {
        let kept = kept(&value, inline_max);
        let bytes = compact(&kept, &value);
        let (_, noted) = noting(|| postcard::from_bytes::<Value>(&bytes).unwrap());
        // From its text, as from the store: nothing is lost in between.
        let mut loaded = Kept::default();
        for content in noted {
            let stored = kept.value(&content.sha256).unwrap().to_json();
            loaded.add(content, Value::from_json(stored.as_bytes()).unwrap());
        }
        let loaded = Arc::new(loaded);
        let read = loading(&loaded, || postcard::from_bytes::<Value>(&bytes).unwrap());
        prop_assert_eq!(&read, &value);
        // And with the table made while reading it is written as before.
        prop_assert_eq!(compact(&loaded, &read), bytes.clone());
        let shown = showing(|| postcard::from_bytes::<Value>(&bytes).unwrap());
        prop_assert_eq!(shown.to_json(), naming(Some(&kept), || value.to_json()));
    }
}
