//! What a client links: the library without its feature `server` has nothing of the node.

use std::collections::BTreeSet;
use std::process::Command;

use crate::tree::root;

/// Crates that the node is built on and a client has no use for.
const OF_THE_NODE: [&str; 8] =
    ["glommio", "fjall", "core_affinity", "cel", "jsonschema", "prometheus-client", "clap", "rcgen"];
/// Crates without which there is no stream to read.
const OF_A_CLIENT: [&str; 4] = ["hyper", "quinn", "tokio-tungstenite", "rustls"];

fn linked(features: &[&str]) -> BTreeSet<String> {
    let told = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", "aob"])
        .args(features)
        .current_dir(root())
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_client_links_nothing_of_the_node() {
    let client = linked(&["--no-default-features", "--features", "client"]);
    let node = linked(&[]);
    for name in OF_THE_NODE {
        assert!(node.contains(name), "{name} is no longer of the node: take it off the list");
        assert!(!client.contains(name), "a client links {name}");
    }
    assert!(!client.iter().any(|name| name.contains("redis")), "a client links a redis client");
    for name in OF_A_CLIENT {
        assert!(client.contains(name), "a client has no {name}");
    }
}
