//! Listeners that systemd holds and passes on: between two nodes nobody is refused.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::process::Command;

use crate::harness::{Client, Node, Options, store};
use crate::systemd::{Manager, plain};

/// Starts the node as systemd does: with these listeners from descriptor 3 on, and its own number in `LISTEN_PID`.
fn activated(options: &Options, listeners: &[&TcpListener]) -> Command {
    let inner = options.clone().wanted().command();
    let mut script = format!("export LISTEN_PID=$$ LISTEN_FDS={};", listeners.len());
    for (at, listener) in listeners.iter().enumerate() {
        // Not closed when the shell takes over; the test's other children may have it as well.
        rustix::io::fcntl_setfd(listener, rustix::io::FdFlags::empty()).unwrap();
        script.push_str(&format!("exec {{copy}}<&{}; copies[{at}]=$copy;", listener.as_raw_fd()));
    }
    for at in 0..listeners.len() {
        script.push_str(&format!("exec {}<&${{copies[{at}]}};", at + 3));
    }
    script.push_str("exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    let variables = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
    command.envs(variables).arg("-c").arg(script).arg(inner.get_program()).args(inner.get_args());
    command
}

fn started(options: &Options, listeners: &[&TcpListener]) -> Result<Node, String> {
    Node::from_command(activated(options, listeners)).map_err(|(_, said)| said)
}

// F432
#[test]
fn a_restart_refuses_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // More cores than listeners: they share it.
    let options = plain(directory.path()).set("cores.control", "2");
    let first = started(&options, &[&listener]).unwrap();
    assert_eq!(first.address, address);
    first.client().get("/readyz").expect(200);
    let (status, _) = first.terminate();
    assert!(status.success());
    // Nobody serves now. This one waits.
    let mut early = Client::new(&address);
    let asked = crate::harness::in_background(move || early.get("/readyz").status);
    let second = started(&options, &[&listener]).unwrap();
    assert!([200, 503].contains(&asked.join().unwrap()), "it was answered");
    second.client().get("/readyz").expect(200);
}

#[test]
fn a_listener_for_each_core_is_served_by_that_core() {
    let directory = tempfile::tempdir().unwrap();
    let socket = |address: std::net::SocketAddr| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket.listen(64).unwrap();
        TcpListener::from(socket)
    };
    let one = socket("127.0.0.1:0".parse().unwrap());
    let other = socket(one.local_addr().unwrap());
    let options = plain(directory.path()).set("cores.control", "2");
    let node = started(&options, &[&one, &other]).unwrap();
    // The kernel gives connections to both; one that nobody serves would wait for ever.
    let patience = std::time::Duration::from_secs(20);
    for _ in 0..32 {
        Client::new(&node.address).patience(patience).get("/readyz").expect(200);
    }
}

#[test]
fn what_is_passed_must_be_what_the_node_is_to_listen_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = plain(directory.path()).set("cores.control", "1");
    let (one, other) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let refused = |options: &Options, listeners: &[&TcpListener]| {
        started(options, listeners).err().expect("it does not start")
    };
    let said = refused(&options, &[&one, &other]);
    assert!(said.contains("2 listeners") && said.contains("cores.control"), "{said}");
    let elsewhere = TcpListener::bind("127.0.0.2:0").unwrap();
    let said = refused(&options, &[&elsewhere]);
    assert!(said.contains("listens on 127.0.0.2") && said.contains("`listen` is 127.0.0.1"), "{said}");
}

// F432
#[test]
fn a_node_that_stands_by_is_ready_and_keeps_its_listeners_when_it_begins_again() {
    if !store::is_there() {
        return;
    }
    let directories = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let [first, second, third] = directories.each_ref().map(tempfile::TempDir::path);
    let of = |directory| {
        let url = store::of(&first.join("data"));
        plain(directory).set("store.url", &url).set("store.lease_seconds", "1")
    };
    let owner = Node::start(&of(first));
    let (manager, listener) = (Manager::new(second), TcpListener::bind("127.0.0.1:0").unwrap());
    let watched = manager.watches(of(second)).env("WATCHDOG_USEC", "3000000");
    let mut node = Node::from_command_until(activated(&watched, &[&listener]), &["standby "]).ok().unwrap();
    let address = node.address.clone();
    assert_eq!(address, listener.local_addr().unwrap().to_string());
    assert!(manager.until("READY=1").1.contains("stands by at"));
    manager.until("WATCHDOG=1");
    owner.kill();
    assert!(manager.until("READY=1").1.contains("serves at"));
    node.until("ready ");
    let other = Node::stand_by(&of(third));
    while other.client().get("/readyz").status != 200 {
        std::thread::yield_now();
    }
    node.signal(rustix::process::Signal::USR1);
    // For systemd it is the same service: it does not end, and is ready again.
    let (before, ready) = manager.until("READY=1");
    assert!(ready.contains("stands by at"), "{ready}");
    assert!(before.iter().all(|text| !text.contains("STOPPING=1")), "{before:?}");
    node.until("standby ");
    assert_eq!(node.address, address);
    while Client::new(&address).get("/readyz").status != 200 {
        std::thread::yield_now();
    }
}
