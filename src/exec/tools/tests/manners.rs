//! A tool server as it should be and as it should not: what it answers to a message, whatever it is spoken to over.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value as Json, json};

/// What it does with a message.
pub(super) enum Does {
    /// Says these messages, in this order.
    Says(Vec<String>),
    /// Nothing.
    Hangs,
    /// Ends.
    Dies,
    /// Says bytes for ever.
    Floods,
}

/// Which era it is of, and what is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// 2026-07-28; otherwise 2025-11-25.
    pub(super) modern: bool,
    /// It lists 10,000 tools.
    pub(super) many: bool,
    /// It says nothing at all.
    pub(super) mute: bool,
}

impl Manner {
    pub(super) fn of(text: &str) -> Self {
        Self { modern: text.contains("modern"), many: text.contains("many"), mute: text.contains("mute") }
    }
}

const TOOLS: [&str; 12] = [
    "echo",
    "pid",
    "listed",
    "environment",
    "die",
    "hang",
    "flood",
    "huge",
    "sample",
    "fail",
    "garbage",
    "bad.name",
];

fn list(manner: Manner) -> Json {
    let tool = |name: &str| {
        json!({"name": name, "description": format!("It is {name}."), "annotations": {"readOnlyHint": name != "die"},
            "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": false}})
    };
    let mut tools: Vec<Json> = TOOLS.iter().map(|name| tool(name)).collect();
    // Nobody could check these arguments.
    tools.push(json!({"name": "odd", "inputSchema": {"type": "object", "x": "y".repeat(40_000)}}));
    // Nobody may be told of this one: its name is a secret of the server's.
    if let Ok(token) = std::env::var("TOKEN") {
        tools.push(tool(&token));
    }
    if manner.many {
        tools.extend((0..10_000).map(|n| tool(&format!("t{n}"))));
    }
    let mut list = json!({"tools": tools});
    if manner.modern {
        list["ttlMs"] = json!(600_000);
        list["cacheScope"] = json!("private");
    } else {
        // One tool a page.
        list = json!({"tools": list["tools"]});
    }
    list
}

fn text(text: &str) -> Json {
    json!({"content": [{"type": "text", "text": text}]})
}

/// Times the list was asked for.
static LISTED: AtomicU64 = AtomicU64::new(0);

fn call(manner: Manner, id: &Json, params: &Json) -> Result<Json, Does> {
    let argument = params["arguments"]["text"].as_str().unwrap_or_default();
    Ok(match params["name"].as_str().unwrap() {
        "echo" | "bad.name" => text(argument),
        "pid" => text(&std::process::id().to_string()),
        "listed" => text(&LISTED.load(Ordering::Relaxed).to_string()),
        "environment" => {
            let mut all: Vec<String> =
                std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
            all.sort();
            text(&all.join(" "))
        }
        "die" => return Err(Does::Dies),
        "hang" => return Err(Does::Hangs),
        "flood" => return Err(Does::Floods),
        "huge" => text(&"x".repeat(100 << 20)),
        "fail" => json!({"content": [{"type": "text", "text": argument}], "isError": true}),
        "sample" if manner.modern => {
            json!({"resultType": "input_required", "inputRequests": {"q": {"method": "sampling/createMessage",
                "params": {"messages": [], "maxTokens": 9}}}})
        }
        "sample" => {
            let ask = json!({"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage",
                "params": {"messages": [], "maxTokens": 9}});
            return Err(Does::Says(vec![ask.to_string(), answer(manner, id, text("asked"))]));
        }
        "garbage" => {
            let mut says: Vec<String> =
                ["{", "[[[[", "null", "{\"jsonrpc\":\"2.0\"}", "\u{7f}\u{0}x"].map(String::from).to_vec();
            says.push(answer(manner, &json!("nobody's"), text("wrong")));
            says.push(answer(manner, id, text("after the garbage")));
            return Err(Does::Says(says));
        }
        other => panic!("{other}"),
    })
}

fn answer(manner: Manner, id: &Json, mut result: Json) -> String {
    if manner.modern && result.get("resultType").is_none() {
        result["resultType"] = json!("complete");
    }
    json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
}

/// What it does with one message.
pub(super) fn told(manner: Manner, message: &Json) -> Does {
    let id = &message["id"];
    let params = &message["params"];
    if manner.mute {
        return Does::Hangs;
    }
    let result = match message["method"].as_str() {
        Some("server/discover") if manner.modern => {
            Ok(json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0,
                "cacheScope": "private"}))
        }
        Some("initialize") if !manner.modern => {
            assert_eq!(params["protocolVersion"], "2025-11-25");
            assert_eq!(params["capabilities"], json!({}), "nothing is offered to a server");
            Ok(json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                "serverInfo": {"name": "test", "version": "1"}}))
        }
        Some("tools/list") => {
            LISTED.fetch_add(1, Ordering::Relaxed);
            Ok(list(manner))
        }
        Some("tools/call") => {
            if manner.modern {
                assert_eq!(params["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
            }
            assert!(params["_meta"]["traceparent"].is_string(), "{params}");
            call(manner, id, params)
        }
        Some(_) if id.is_null() => return Does::Says(Vec::new()),
        Some(_) => {
            let error = json!({"code": -32601, "message": "no such method"});
            return Does::Says(vec![json!({"jsonrpc": "2.0", "id": id, "error": error}).to_string()]);
        }
        None => return Does::Says(Vec::new()),
    };
    match result {
        Ok(result) => Does::Says(vec![answer(manner, id, result)]),
        Err(does) => does,
    }
}
