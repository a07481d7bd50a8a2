//! Nodes and edges of a scope, as far as a drawing needs them, read from the canonical document.
//!
//! Bodies of kinds that the compiler hands on as they were written may hold arrays and sugar; both are read. What does
//! not fit is left out: the compiler has said so already.

use crate::model::Value;

/// A scope: the workflow's own or a body's.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: Vec<Edge>,
}

#[derive(Debug)]
pub(crate) struct Node {
    /// Empty for a body that is one node.
    pub(crate) id: String,
    pub(crate) kind: String,
    /// The setting that says most about it.
    pub(crate) note: String,
    /// By label: `body`, the names of branches, `fallback`.
    pub(crate) bodies: Vec<(String, Scope)>,
    /// What became of it, when two graphs are compared.
    pub(crate) mark: Mark,
}

/// Ends are positions in [`Scope::nodes`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) on: String,
    pub(crate) when: String,
    /// What became of it, when two graphs are compared.
    pub(crate) mark: Mark,
}

/// What became of a node or an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is as it was.
    #[default]
    None,
    Added,
    Removed,
    Changed,
}

impl Mark {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Added => "added:",
            Self::Removed => "removed:",
            Self::Changed => "changed:",
        }
    }

    /// To stand behind another class.
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Added => " added",
            Self::Removed => " removed",
            Self::Changed => " changed",
        }
    }
}

impl Scope {
    /// Reads `nodes` and `edges`, or the only node of a body.
    pub(crate) fn read(value: &Value) -> Self {
        let Some(nodes) = value.get("nodes") else {
            return Self { nodes: vec![Node::read("", value)], edges: Vec::new() };
        };
        let nodes: Vec<(&str, &Value)> = match nodes {
            Value::Map(map) => map.iter().map(|(id, node)| (&**id, node)).collect(),
            Value::List(items) => items.iter().filter_map(|node| Some((text(node, "id")?, node))).collect(),
            _ => Vec::new(),
        };
        let mut ids: Vec<(&str, usize)> = nodes.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
        ids.sort_unstable();
        let mut scope =
            Self { nodes: nodes.iter().map(|(id, node)| Node::read(id, node)).collect(), edges: Vec::new() };
        match value.get("edges") {
            Some(Value::Map(map)) => map.iter().for_each(|(key, edge)| scope.edge(&ids, Some(key), edge)),
            Some(Value::List(items)) => items.iter().for_each(|edge| scope.edge(&ids, None, edge)),
            _ => {}
        }
        for (id, node) in nodes {
            scope.sugar(&ids, id, node);
        }
        scope
    }

    fn edge(&mut self, ids: &[(&str, usize)], key: Option<&str>, edge: &Value) {
        let (pair, label) = key.map_or(("", None), |key| match key.split_once(':') {
            Some((pair, label)) => (pair, Some(label)),
            None => (key, None),
        });
        let (first, second) = pair.split_once('/').unwrap_or_default();
        let from = text(edge, "from").unwrap_or(first);
        let to = text(edge, "to").unwrap_or(second);
        let on = text(edge, "on").or(label).unwrap_or("success");
        let when = edge.get("when").map(shown).unwrap_or_default();
        self.add(ids, (from, to), on, when);
    }

    /// Edges that a node's own keys ask for. In a canonical scope there are none left.
    fn sugar(&mut self, ids: &[(&str, usize)], id: &str, node: &Value) {
        for source in items(node.get("needs")) {
            self.add(ids, (source.as_str().unwrap_or_default(), id), "success", String::new());
        }
        if let Some(target) = node.get("on_error").and_then(|on| text(on, "goto")) {
            self.add(ids, (id, target), "error", String::new());
        }
        for branch in items(node.get("with").and_then(|with| with.get("branches"))) {
            if let Some(to) = text(branch, "to") {
                self.add(ids, (id, to), text(branch, "name").unwrap_or(to), String::new());
            }
        }
    }

    fn add(&mut self, ids: &[(&str, usize)], (from, to): (&str, &str), on: &str, when: String) {
        let find = |id: &str| {
            let at = ids.binary_search_by(|(other, _)| (*other).cmp(id)).ok()?;
            ids.get(at).map(|(_, node)| *node)
        };
        if let (Some(from), Some(to)) = (find(from), find(to)) {
            self.edges.push(Edge { from, to, on: on.to_owned(), when, mark: Mark::None });
        }
    }

    /// Marks nodes by id, and edges by the ids of their ends and by what they wait for. Only the outermost scope is marked.
    pub(crate) fn mark(
        &mut self,
        of_node: impl Fn(&str) -> Mark,
        of_edge: impl Fn(&str, &str, &str) -> Mark,
    ) {
        for edge in &mut self.edges {
            let id = |at: usize| self.nodes.get(at).map_or("", |node| &node.id);
            edge.mark = of_edge(id(edge.from), id(edge.to), &edge.on);
        }
        for node in &mut self.nodes {
            node.mark = of_node(&node.id);
        }
    }

    /// Is there anything to tell apart?
    pub(crate) fn is_marked(&self) -> bool {
        let mut marks =
            self.nodes.iter().map(|node| node.mark).chain(self.edges.iter().map(|edge| edge.mark));
        marks.any(|mark| mark != Mark::None)
    }

    /// Nodes and edges, those of bodies too.
    pub(crate) fn count(&self) -> (usize, usize) {
        let bodies = self.nodes.iter().flat_map(|node| &node.bodies);
        bodies.fold((self.nodes.len(), self.edges.len()), |(nodes, edges), (_, body)| {
            let inner = body.count();
            (nodes + inner.0, edges + inner.1)
        })
    }
}

impl Node {
    fn read(id: &str, value: &Value) -> Self {
        let kind = text(value, "type").unwrap_or("?").to_owned();
        let nothing = Value::Null;
        let with = value.get("with").unwrap_or(&nothing);
        let mut bodies = Vec::new();
        if let Some(body) = with.get("body").filter(|_| matches!(&*kind, "map" | "loop" | "composite")) {
            bodies.push(("body".to_owned(), Scope::read(body)));
        }
        if let Some(Value::Map(branches)) = with.get("branches").filter(|_| kind == "parallel") {
            bodies.extend(branches.iter().map(|(name, body)| (name.to_string(), Scope::read(body))));
        }
        if let Some(fallback) = value.get("fallback").filter(|body| is_body(body)) {
            bodies.push(("fallback".to_owned(), Scope::read(fallback)));
        }
        Self { id: id.to_owned(), note: note(&kind, with), kind, bodies, mark: Mark::None }
    }
}

/// A fallback is a body when it has a type or nodes, and a value otherwise.
fn is_body(value: &Value) -> bool {
    value.get("nodes").is_some() || text(value, "type").is_some()
}

/// What tells this node from others of its kind.
fn note(kind: &str, with: &Value) -> String {
    let of = |key: &str| with.get(key).map(shown).unwrap_or_default();
    let say = |word: &str, key: &str| {
        with.get(key).map(|value| format!("{word} {}", shown(value))).unwrap_or_default()
    };
    match kind {
        "function" => of("expr"),
        "map" => say("over", "over"),
        "loop" => say("while", "while"),
        "join" => match with.get("wait") {
            Some(Value::Map(wait)) => {
                format!("at least {}", wait.get("at_least").map(shown).unwrap_or_default())
            }
            Some(wait) => shown(wait),
            None => String::new(),
        },
        "composite" => of("workflow"),
        "delay" if with.get("until").is_some() => say("until", "until"),
        "delay" => say("for", "for"),
        "wait" => say("signal", "signal"),
        "human_review" => items(with.get("reviewers")).iter().map(shown).collect::<Vec<_>>().join(", "),
        "http" => format!("{} {}", text(with, "method").unwrap_or("GET"), of("url")).trim_end().to_owned(),
        "agent" => [of("role"), of("task")].join(" ").trim().to_owned(),
        "task" => say("queue", "queue"),
        _ => String::new(),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_json(), str::to_owned)
}
