//! Keyspaces on real servers: what every back end of them owes, what every index owes, and what servers do to it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::*;
use crate::io::file::testing::on_tokio;
use crate::store::index::{self, testing};
use crate::store::journal::Journal as _;
use crate::store::keyspaces::{Keyspace, conformance};
use crate::store::redis::Level;
use crate::store::redis::journal::{Known, RedisJournal};
use crate::store::redis::testing::{AOF, Server};

// F052, F065
#[test]
fn the_keyspaces_conform() {
    let Some(server) = Server::start(&AOF) else { return };
    conformance::run(60, &|number| server.keyspaces(number as u16, &conformance::NAMES, None));
}

/// As in a directory: the same keyspaces for the same path.
fn by_path(server: Server) -> impl Fn(&Path) -> Arc<dyn Keyspaces> {
    let numbers: Rc<RefCell<BTreeMap<PathBuf, u16>>> = Rc::default();
    move |dir| {
        let mut numbers = numbers.borrow_mut();
        let next = numbers.len() as u16;
        let number = *numbers.entry(dir.to_owned()).or_insert(next);
        server.keyspaces(number, &index::NAMES, None)
    }
}

// F052, F065
#[test]
fn the_index_conforms() {
    let Some(server) = Server::start(&AOF) else { return };
    testing::elsewhere(Box::new(by_path(server)));
    for test in testing::ALL {
        test();
    }
}

fn put(keyspaces: &Arc<dyn Keyspaces>, number: usize, key: &str) -> Result<(), Error> {
    let mut batch = Batch::default();
    batch.insert(&Keyspace::new(keyspaces, number), key, "value");
    keyspaces.commit(batch)
}

// RELIABILITY 2.7
#[test]
fn whoever_owned_the_partition_before_changes_nothing() {
    let Some(server) = Server::start(&AOF) else { return };
    let claim = |nonce| {
        on_tokio(async {
            let config = server.config(Level::Aof);
            RedisJournal::open(&config, Known::default()).await.unwrap().claim(nonce).await.unwrap()
        })
    };
    let of = |fence| server.keyspaces(3, &conformance::NAMES, Some(fence));
    let old = of(claim(1));
    put(&old, 0, "a").unwrap();
    let new = of(claim(2));
    assert_eq!(put(&old, 0, "late").unwrap_err().code(), "stale_fence");
    put(&new, 0, "b").unwrap();
    let keys: Vec<_> = Keyspace::new(&old, 0).iter().map(|row| row.key().unwrap().to_vec()).collect();
    assert_eq!(keys, [b"a".to_vec(), b"b".to_vec()], "it may still read");
}

// RELIABILITY C4
#[test]
fn without_memory_a_batch_is_refused_whole_and_reads_go_on() {
    let Some(server) = Server::start(&[&AOF[..], &["--maxmemory", "6mb"]].concat()) else { return };
    let keyspaces = server.keyspaces(0, &conformance::NAMES, None);
    let [one, two] = [0, 1].map(|number| Keyspace::new(&keyspaces, number));
    let mut written = 0_u32;
    let error = loop {
        let mut batch = Batch::default();
        batch.insert(&one, written.to_be_bytes(), vec![7; 128 << 10]);
        batch.insert(&two, written.to_be_bytes(), []);
        match keyspaces.commit(batch) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "it has room for 48 at most");
    };
    assert_eq!(error.code(), "store_refused");
    let counts = [&one, &two].map(|keyspace| keyspace.iter().filter(|row| row.is_ok()).count() as u32);
    assert_eq!(counts, [written; 2]);
    server.command(&["CONFIG", "SET", "maxmemory", "0"]);
    put(&keyspaces, 0, "more").unwrap();
}

// RELIABILITY C1, C2
#[test]
fn kills_of_the_server_are_waited_for_and_take_nothing_with_them() {
    let Some(mut server) = Server::start(&AOF) else { return };
    let keyspaces = server.keyspaces(0, &conformance::NAMES, None);
    for round in 0..3 {
        for n in 0..50 {
            put(&keyspaces, n % 2, &format!("{round} {n:02}")).unwrap();
        }
        server.restart();
    }
    let all = [0, 1].map(|number| Keyspace::new(&keyspaces, number).iter().count());
    assert_eq!(all, [75, 75]);
    server.kill();
    drop(server);
}

#[test]
fn a_key_without_a_value_is_damage_and_too_many_changes_are_refused_before_they_are_sent() {
    let Some(server) = Server::start(&AOF) else { return };
    let keyspaces = server.keyspaces(0, &conformance::NAMES, None);
    put(&keyspaces, 0, "a").unwrap();
    server.command(&["HDEL", "aob:{0}:v:one", "a"]);
    let row = Keyspace::new(&keyspaces, 0).iter().next().unwrap();
    assert_eq!(row.into_inner().unwrap_err().code(), "store_damaged");
    let (mut batch, one) = (Batch::default(), Keyspace::new(&keyspaces, 0));
    (0..=limits::STORE_CHANGES_MAX).for_each(|n| batch.insert(&one, n.to_be_bytes(), []));
    let error = keyspaces.commit(batch).unwrap_err();
    assert!(error.to_string().contains("limit store_changes_max"), "{error}");
}
