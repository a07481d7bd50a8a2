//! A small client of a headless Chromium: the DevTools protocol over two pipes, messages ended by a zero byte.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// Names of the browser on Debian and elsewhere, the smallest first.
const NAMES: [&str; 4] = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: String,
    number: u64,
    /// Events that came while something else was waited for.
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// The browser's binary; says loudly when there is none, and fails where tests must not be left out.
pub fn binary() -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let found = NAMES.iter().find(|name| path.split(':').any(|dir| Path::new(dir).join(name).is_file()));
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "no chromium here; tests/run installs it");
        println!("SKIPPED pages in a browser: there is no chromium; apt-get install chromium-headless-shell");
    }
    found.map(|name| (*name).to_owned())
}

impl Browser {
    /// Starts it, with scripts or without.
    pub fn start(binary: &str, scripts: bool) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let (to, from) = (profile.path().join("to"), profile.path().join("from"));
        assert!(Command::new("mkfifo").args([&to, &from]).status().unwrap().success());
        // The browser reads from descriptor 3 and writes to 4.
        let child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$AOB_TO\" 4>\"$AOB_FROM\"", binary])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--disable-dev-shm-usage",
            ])
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.path().join("profile").display()))
            .env("AOB_TO", &to)
            .env("AOB_FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = File::options().write(true).open(to).unwrap();
        let from = BufReader::new(File::open(from).unwrap());
        let session = String::new();
        let mut browser = Self { child, to, from, session, number: 0, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({"targetId": target, "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "DOM.enable", "Log.enable", "Network.enable"] {
            browser.call(domain, json!({}));
        }
        if !scripts {
            browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true}));
        }
        browser
    }

    fn read(&mut self) -> Value {
        let mut message = Vec::new();
        self.from.read_until(0, &mut message).unwrap();
        assert_eq!(message.pop(), Some(0), "the browser is gone");
        serde_json::from_slice(&message).unwrap()
    }

    /// Calls a method and waits for its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let answer = self.read();
            if answer["id"] == json!(self.number) {
                assert_eq!(answer.get("error"), None, "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event, also one that came already.
    fn event(&mut self, name: &str) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["method"] == name) {
                return self.events.remove(at);
            }
            let message = self.read();
            self.events.push(message);
        }
    }

    /// Opens a page and waits until it is there.
    pub fn open(&mut self, url: &str) {
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        let shown = self.call("Page.navigate", json!({"url": url}));
        assert_eq!(shown.get("errorText"), None, "{shown}");
        self.event("Page.loadEventFired");
    }

    /// The status that the page was answered with last.
    pub fn status(&mut self) -> u64 {
        let mut documents = self.events.iter().filter(|event| {
            event["method"] == "Network.responseReceived" && event["params"]["type"] == "Document"
        });
        documents.next_back().unwrap()["params"]["response"]["status"].as_u64().unwrap()
    }

    /// What the browser complains about, such as a policy that is broken.
    pub fn complaints(&mut self) -> Vec<String> {
        let entries = self.events.iter().filter(|event| event["method"] == "Log.entryAdded");
        let texts = entries.map(|event| event["params"]["entry"]["text"].as_str().unwrap_or_default());
        // A status that is no success is one, too.
        texts.filter(|text| !text.contains("status of")).map(str::to_owned).collect()
    }

    /// The page as the browser understands it.
    pub fn html(&mut self) -> String {
        let root = self.call("DOM.getDocument", json!({"depth": 0}))["root"]["nodeId"].clone();
        let html = self.call("DOM.getOuterHTML", json!({"nodeId": root}));
        html["outerHTML"].as_str().unwrap().to_owned()
    }

    fn find(&mut self, selector: &str) -> Value {
        let root = self.call("DOM.getDocument", json!({"depth": 0}))["root"]["nodeId"].clone();
        let found = self.call("DOM.querySelector", json!({"nodeId": root, "selector": selector}));
        assert_ne!(found["nodeId"], json!(0), "there is no {selector}");
        found["nodeId"].clone()
    }

    /// Elements that fit.
    pub fn count(&mut self, selector: &str) -> usize {
        let root = self.call("DOM.getDocument", json!({"depth": 0}))["root"]["nodeId"].clone();
        let found = self.call("DOM.querySelectorAll", json!({"nodeId": root, "selector": selector}));
        found["nodeIds"].as_array().unwrap().len()
    }

    /// Types into a field.
    pub fn fill(&mut self, selector: &str, text: &str) {
        let node = self.find(selector);
        self.call("DOM.focus", json!({"nodeId": node}));
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Chooses what begins with a letter.
    pub fn choose(&mut self, selector: &str, letter: &str) {
        let node = self.find(selector);
        self.call("DOM.focus", json!({"nodeId": node}));
        for kind in ["keyDown", "keyUp"] {
            let key = json!({"type": kind, "text": letter, "key": letter, "unmodifiedText": letter});
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// Presses a button and waits for the page that it leads to.
    pub fn press(&mut self, selector: &str) {
        let node = self.find(selector);
        self.call("DOM.scrollIntoViewIfNeeded", json!({"nodeId": node}));
        let model = self.call("DOM.getBoxModel", json!({"nodeId": node}));
        let at = |corner: usize| model["model"]["content"][corner].as_f64().unwrap();
        let (x, y) = ((at(0) + at(4)) / 2.0, (at(1) + at(5)) / 2.0);
        self.events.retain(|event| event["method"] != "Page.loadEventFired");
        for kind in ["mousePressed", "mouseReleased"] {
            let click = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", click);
        }
        self.event("Page.loadEventFired");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
