//! How many requests a token, or an address, may send.

use serde_json::json;

use crate::access::{Caller, Guarded};
use crate::harness::{Node, Options};

#[test]
fn a_token_that_sends_too_much_is_told_when_to_come_back_and_others_do_not_notice() {
    let guarded = Guarded::new();
    let (busy, quiet) =
        (guarded.new_token("busy", "default", "write"), guarded.new_token("quiet", "default", "read"));
    let set =
        |options: Options| options.set("limits.requests_per_second", "2").set("limits.requests_burst", "10");
    let node = guarded.start_with(set);
    // Connections fall on different cores; the count is one.
    let mut callers: Vec<_> = (0..4).map(|_| Caller::new(&node, &busy)).collect();
    let mut refused = Vec::new();
    let mut through = 0;
    for n in 0..20 {
        let answer = callers[n % 4].get("/v1/workflows");
        assert_eq!(answer.header("ratelimit-policy"), Some("\"requests\";q=10;w=5"));
        assert!(answer.header("ratelimit").unwrap().starts_with("\"requests\";r="), "{:?}", answer.headers);
        match answer.status {
            200 => through += 1,
            429 => refused.push(answer),
            status => panic!("{status}"),
        }
    }
    // A slow machine lets some grow again; not many.
    assert!((10..18).contains(&through), "{through}");
    let problem = refused[0].json();
    assert_eq!((&problem["code"], &problem["outcome"]), (&json!("rate_limited"), &json!("not_applied")));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("busy") && detail.contains("limits.requests_per_second"), "{detail}");
    let seconds: u64 = refused[0].header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    let mut other = Caller::new(&node, &quiet);
    let answer = other.get("/v1/workflows");
    assert_eq!((answer.status, answer.header("ratelimit")), (200, Some("\"requests\";r=9;t=1")));
    // Guessing tokens is counted too, as the address; probes are not.
    let mut guesser = Caller::new(&node, "aob_guess");
    let guesses: Vec<_> = (0..15).map(|_| guesser.get("/v1/workflows").status).collect();
    assert!(guesses.starts_with(&[401; 10]) && guesses.contains(&429), "{guesses:?}");
    for _ in 0..30 {
        let probe = guesser.get("/livez");
        assert_eq!((probe.status, probe.header("ratelimit")), (200, None));
    }
}

#[test]
fn nobody_is_counted_where_no_limit_is_set() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&Options::serve(directory.path()));
    let answer = node.client().get("/v1/workflows").expect(200);
    assert!(answer.header("ratelimit").is_none() && answer.header("ratelimit-policy").is_none());
}
