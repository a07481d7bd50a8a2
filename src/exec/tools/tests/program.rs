//! Tool servers that are programs. The program is this test binary, told by its environment what to be.

use std::io::{BufRead as _, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::manners::{Does, Manner, told};
use super::*;

const ROLE: &str = "AOB_TEST_TOOL_SERVER";
const OWN_NAME: &str = "exec::tools::tests::program::a_program_that_other_tests_start";

/// Not a test of its own: the tool server, when the environment says so. What the harness prints before is garbage to a client.
#[test]
fn a_program_that_other_tests_start() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let manner = Manner::of(&role);
    let mut out = std::io::stdout();
    // The harness has begun a line.
    writeln!(out).unwrap();
    eprintln!("starting with {}", std::env::var("TOKEN").unwrap_or_default());
    for line in std::io::stdin().lock().lines() {
        let Ok(message) = serde_json::from_str(&line.unwrap()) else { continue };
        match told(manner, &message) {
            Does::Says(messages) => {
                let all: String = messages.iter().map(|message| format!("{message}\n")).collect();
                let _ = out.write_all(all.as_bytes());
            }
            Does::Hangs => {}
            Does::Dies => std::process::exit(3),
            Does::Floods => while writeln!(out, "{}", "x".repeat(1 << 20)).is_ok() {},
        }
        if out.flush().is_err() {
            break;
        }
    }
    std::process::exit(0);
}

fn server(role: &str, timeout: Duration) -> Server {
    let own = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let command = [&own, "--exact", OWN_NAME, "--nocapture", "--test-threads=1"].map(str::to_owned);
    let environment = [(ROLE, role), ("TOKEN", "${secret:TOKEN}"), ("RUST_MIN_STACK", "4000000")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Server {
        at: At::Command { command: command.to_vec(), environment, directory: Some("/".into()) },
        timeout,
        max_in_flight: 4,
        calls_per_minute: 0,
    }
}

const LONG: Duration = Duration::from_secs(120);

fn with(role: &str, timeout: Duration, test: impl AsyncFnOnce(Tools, Value)) {
    let (_directory, secrets) = secrets("TOKEN", "cAnary-stdio-7");
    let servers = [("it".into(), server(role, timeout))].into();
    Parts { servers, secrets, ..Parts::default() }
        .run(async |tools| test(tools, json(r#"["mcp:it/*"]"#)).await);
}

async fn text(tools: &Tools, allowed: &Value, tool: &str) -> String {
    let value = tools.ask(allowed, tool, r#"{"text": "hello"}"#).await.unwrap();
    value.as_str().unwrap().to_owned()
}

// F337, F414, F429
#[test]
fn a_program_of_either_era_lists_and_answers() {
    for role in ["legacy", "modern"] {
        with(role, LONG, async |tools, allowed| {
            let offered = tools.offered(&allowed).await.unwrap();
            assert_eq!(offered.len(), 12, "{role}: the one whose schema is too large is left out");
            let echo = offered.iter().find(|spec| &*spec.name == "it__echo").unwrap();
            assert_eq!(&*echo.description, "It is echo.");
            assert!(echo.parameters.to_json().contains("additionalProperties"));
            assert_eq!(text(&tools, &allowed, "it__echo").await, "hello", "{role}");
            let odd = offered.iter().find(|spec| spec.name.starts_with("it__bad_name-")).unwrap();
            assert_eq!(text(&tools, &allowed, &odd.name).await, "hello");
            assert_eq!(text(&tools, &allowed, "it__garbage").await, "after the garbage", "{role}");
            // Kept: the list was asked for once.
            assert_eq!(text(&tools, &allowed, "it__listed").await, "1", "{role}");
            let failed = tools.fails(&allowed, "it__fail", r#"{"text": "no such city"}"#).await;
            assert_eq!((&*failed.code, &*failed.message), ("tool_failed", "no such city"));
            let wrong = tools.fails(&allowed, "it__echo", r#"{"txt": "x"}"#).await;
            assert_eq!(&*wrong.code, "tool_arguments_invalid");
            // One tool is allowed: the others are not there.
            let one = json(r#"["mcp:it/echo"]"#);
            assert_eq!(tools.offered(&one).await.unwrap().len(), 1);
            assert_eq!(text(&tools, &one, "it__echo").await, "hello");
            assert_eq!(&*tools.fails(&one, "it__pid", "{}").await.code, "tool_not_allowed");
            assert_eq!(
                &*tools.offered(&json(r#"["mcp:it/none"]"#)).await.unwrap_err().code,
                "tool_unavailable"
            );
        });
    }
}

// F411
#[test]
fn a_program_sees_its_own_environment_and_no_secret_comes_back() {
    with("legacy", LONG, async |tools, allowed| {
        let environment = text(&tools, &allowed, "it__environment").await;
        let names: Vec<&str> = environment.split(' ').filter_map(|pair| pair.split('=').next()).collect();
        let known = [ROLE, "HOME", "PATH", "RUST_MIN_STACK", "TOKEN"];
        assert!(names.iter().all(|name| known.contains(name)), "{environment}");
        assert!(environment.contains("TOKEN=[redacted]") && !environment.contains("cAnary"), "{environment}");
        let failed = tools.fails(&allowed, "it__fail", r#"{"text": "your cAnary-stdio-7"}"#).await;
        assert_eq!(&*failed.message, "your [redacted]");
    });
}

/// Waits until a process is gone.
fn gone(pid: &str) {
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    if let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) {
        let most = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&most)).unwrap(), 1, "it lives on");
    }
}

// F388
#[test]
fn a_program_that_dies_is_started_again_after_a_pause_and_ends_with_the_node() {
    let mut last = String::new();
    with("modern", LONG, async |tools, allowed| {
        let first = text(&tools, &allowed, "it__pid").await;
        let died = tools.fails(&allowed, "it__die", "{}").await;
        assert_eq!((&*died.code, died.retryable()), ("tool_unavailable", false));
        assert!(died.message.contains("the effect of the call is unknown"), "{died}");
        // At once it is left alone, and says for how long.
        let rests = tools.fails(&allowed, "it__pid", "{}").await;
        assert_eq!((&*rests.code, rests.retryable()), ("tool_unavailable", true));
        crate::io::sleep(rests.retry_after().unwrap()).await;
        last = text(&tools, &allowed, "it__pid").await;
        assert_ne!(first, last);
        gone(&first);
        let lost = CallName { lost: true, ..name() };
        let again = tools.call(&lost, &allowed, &asks("it__echo", "{}")).await;
        assert_eq!(again.outcome, Ok(Value::string("")), "it says that it only reads");
        let again = tools.call(&lost, &allowed, &asks("it__die", "{}")).await;
        assert_eq!(&*again.outcome.unwrap_err().code, "outcome_unknown");
    });
    gone(&last);
}

#[test]
fn a_program_that_floods_or_says_too_much_at_once_is_cut_off() {
    for (tool, code, says) in [
        ("it__huge", "tool_result_too_large", "tool_server_message_bytes_max"),
        ("it__flood", "tool_unavailable", "tool_server_unasked_bytes_max"),
    ] {
        with("modern", LONG, async |tools, allowed| {
            let pid = text(&tools, &allowed, "it__pid").await;
            let failed = tools.fails(&allowed, tool, "{}").await;
            assert_eq!(&*failed.code, code, "{failed}");
            assert!(failed.message.contains(says), "{failed}");
            let pause = tools.fails(&allowed, "it__pid", "{}").await.retry_after().unwrap();
            crate::io::sleep(pause).await;
            assert_ne!(text(&tools, &allowed, "it__pid").await, pid);
            gone(&pid);
        });
    }
}

#[test]
fn nothing_is_given_to_a_program_that_asks_for_a_model() {
    with("legacy", LONG, async |tools, allowed| {
        assert_eq!(text(&tools, &allowed, "it__sample").await, "asked");
    });
    with("modern", LONG, async |tools, allowed| {
        let refused = tools.fails(&allowed, "it__sample", "{}").await;
        assert_eq!(&*refused.code, "tool_failed");
        assert!(refused.message.contains("that is refused"), "{refused}");
    });
}

#[test]
fn ten_thousand_tools_are_too_many_and_a_program_that_hangs_is_not_waited_for() {
    with("legacy many", LONG, async |tools, allowed| {
        let many = tools.offered(&allowed).await.unwrap_err();
        assert_eq!(&*many.code, "tools_max");
        assert!(many.message.contains("tool_server_tools_max"), "{many}");
    });
    with("mute", Duration::from_millis(300), async |tools, allowed| {
        let failed = tools.offered(&allowed).await.unwrap_err();
        assert!(matches!(&*failed.code, "tool_timeout" | "tool_unavailable"), "{failed}");
        assert!(failed.message.contains("the tool server it"), "{failed}");
    });
    with("modern", Duration::from_secs(2), async |tools, allowed| {
        let pid = text(&tools, &allowed, "it__pid").await;
        // F379
        for _ in 0..5 {
            let late = tools.fails(&allowed, "it__hang", "{}").await;
            assert_eq!((&*late.code, late.retryable()), ("tool_timeout", true));
        }
        let open = tools.fails(&allowed, "it__pid", "{}").await;
        assert_eq!(&*open.code, "tool_unavailable");
        assert!(open.details.get("last_failure_at").is_some() && open.retry_after().is_some(), "{open:?}");
        gone(&pid);
    });
    let none = Server {
        at: At::Command {
            command: vec!["/no/such/program".into()],
            environment: BTreeMap::new(),
            directory: None,
        },
        ..server("", LONG)
    };
    Parts { servers: [("it".into(), none)].into(), ..Parts::default() }.run(async |tools| {
        let failed = tools.offered(&json(r#"["mcp:it/*"]"#)).await.unwrap_err();
        assert_eq!((&*failed.code, failed.retryable()), ("tool_unavailable", true));
        assert!(failed.message.contains("tool server it"), "{failed}");
    });
}
