//! Builds IR by hand, with real expressions.

use std::sync::Arc;
use std::time::Duration;

use crate::expr::{Program, Reference};
use crate::ir::{
    Backoff, Edge, Executor, Expr, Ir, Kind, Merge, Node, On, OnError, OnItemError, Policy, Retry, Schema,
    Scope, Slot, Span, Template,
};
use crate::model::Value;

/// An IR in the making. Scope 0 is there from the start.
pub(super) struct Build {
    pub(super) ir: Ir,
    /// The scope around each scope.
    around: Vec<Option<u32>>,
}

impl Build {
    pub(super) fn new() -> Self {
        let ir = Ir {
            name: "w".into(),
            version: "1".into(),
            document: [9; 32],
            scopes: vec![Scope::default()],
            mode: crate::model::Mode::Full,
            deadline: None,
            retention: None,
            admission: None,
            budget: None,
            outputs: Vec::new(),
        };
        Self { ir, around: vec![None] }
    }

    /// A body inside `around`.
    pub(super) fn body(&mut self, around: u32, anonymous: bool) -> u32 {
        self.ir.scopes.push(Scope { anonymous, ..Scope::default() });
        self.around.push(Some(around));
        u32::try_from(self.ir.scopes.len() - 1).unwrap()
    }

    pub(super) fn node(&mut self, scope: u32, id: &str, kind: Kind) -> u32 {
        let nodes = &mut self.ir.scopes[scope as usize].nodes;
        nodes.push(Node {
            id: id.into(),
            kind,
            input: None,
            policy: Policy::All,
            on_error: OnError::Fail,
            retry: None,
            timeout: None,
            output_schema: None,
            fallback: None,
            at_most_once: false,
            priority: crate::model::Priority::Medium,
            outputs: Vec::new(),
            incoming: Vec::new(),
            outgoing: Vec::new(),
        });
        u32::try_from(nodes.len() - 1).unwrap()
    }

    pub(super) fn at(&mut self, scope: u32, node: u32) -> &mut Node {
        &mut self.ir.scopes[scope as usize].nodes[node as usize]
    }

    pub(super) fn edge(&mut self, scope: u32, from: u32, to: u32) {
        self.edge_on(scope, (from, to), On::Success, None);
    }

    pub(super) fn edge_on(&mut self, scope: u32, (from, to): (u32, u32), on: On, when: Option<&str>) {
        let when = when.map(|when| self.expr(scope, when));
        let graph = &mut self.ir.scopes[scope as usize];
        let edge = u32::try_from(graph.edges.len()).unwrap();
        graph.edges.push(Edge { from, to, on, when });
        graph.nodes[from as usize].outgoing.push(edge);
        graph.nodes[to as usize].incoming.push(edge);
    }

    /// A chain of edges through these nodes.
    pub(super) fn chain(&mut self, scope: u32, nodes: &[u32]) {
        for pair in nodes.windows(2) {
            self.edge(scope, pair[0], pair[1]);
        }
    }

    /// Compiles an expression that stands in `scope`; the nodes it names must be there.
    pub(super) fn expr(&self, scope: u32, source: &str) -> Expr {
        let program = Program::compile(source).unwrap_or_else(|error| panic!("{source}: {error}"));
        let slots = program.references().iter().map(|name| self.slot(scope, name)).collect();
        Expr { program: program.into(), slots }
    }

    fn slot(&self, scope: u32, name: &Reference) -> Slot {
        match name {
            Reference::Inputs => Slot::Inputs,
            Reference::Input => Slot::Input,
            Reference::EdgeOutput => Slot::EdgeOutput,
            Reference::Item => Slot::Item { up: 0 },
            Reference::Index => Slot::Index { up: 0 },
            Reference::Run => Slot::Run,
            Reference::Node(id) => {
                let (up, node) = self.find(scope, |node| node.id == *id);
                Slot::Node { up, node }
            }
            Reference::Output(member) => {
                let (up, node) = self.find(scope, |node| node.outputs.contains(member));
                Slot::Output { up, node, member: member.clone() }
            }
            Reference::Iteration => Slot::Iteration { up: 0 },
        }
    }

    fn find(&self, scope: u32, wanted: impl Fn(&Node) -> bool) -> (u32, u32) {
        let (mut scope, mut up) = (Some(scope), 0);
        while let Some(here) = scope {
            if let Some(at) = self.ir.scopes[here as usize].nodes.iter().position(&wanted) {
                return (up, u32::try_from(at).unwrap());
            }
            scope = self.around[here as usize];
            up += 1;
        }
        panic!("no such node");
    }

    pub(super) fn template(&self, scope: u32, source: &str) -> Template {
        Template::Expr(self.expr(scope, source))
    }

    pub(super) fn function(&self, scope: u32, source: &str) -> Kind {
        Kind::Function { expr: Some(self.expr(scope, source)) }
    }

    pub(super) fn conditional(&self, scope: u32, branches: &[(&str, &str)], default: Option<&str>) -> Kind {
        let branches =
            branches.iter().map(|(name, when)| (Arc::from(*name), self.expr(scope, when))).collect();
        Kind::Conditional { branches, default: default.map(Arc::from) }
    }

    pub(super) fn map(&self, scope: u32, over: &str, body: u32, on_item_error: OnItemError) -> Kind {
        Kind::Map { over: self.expr(scope, over), body, max_concurrency: None, on_item_error }
    }

    /// A map over `over` in the outermost scope, whose body is the one function `source`.
    pub(super) fn map_of(&mut self, over: &str, source: &str, on_item_error: OnItemError) -> u32 {
        let body = self.body(0, true);
        let score = self.function(body, source);
        self.node(body, "body", score);
        let kind = self.map(0, over, body, on_item_error);
        self.node(0, "each", kind)
    }

    pub(super) fn build(self) -> Arc<Ir> {
        Arc::new(self.ir)
    }
}

/// A call of this executor that asks for its input.
pub(super) fn call(build: &Build, scope: u32, executor: Executor) -> Kind {
    let request = match executor {
        Executor::Agent => "{'asks': input, 'models': ['a', 'b'], 'max_turns': 4}",
        _ => "{'asks': input}",
    };
    Kind::Call { executor, request: build.template(scope, request) }
}

/// Up to `attempts` calls, `seconds` apart.
pub(super) fn retry(attempts: u32, seconds: u64) -> Option<Retry> {
    let initial = Duration::from_secs(seconds);
    let (backoff, max) = (Backoff::Fixed, Duration::from_secs(60));
    Some(Retry { max_attempts: attempts, backoff, initial, max, multiplier: 2.0, jitter: false })
}

pub(super) fn identity() -> Kind {
    Kind::Function { expr: None }
}

pub(super) fn join() -> Kind {
    Kind::Join { merge: Merge::Object }
}

pub(super) fn delay(seconds: u64) -> Kind {
    Kind::Delay { span: Span::For(Duration::from_secs(seconds)) }
}

pub(super) fn wait(signal: &str, timeout: Option<u64>) -> Kind {
    Kind::Wait {
        signal: Template::Value(Value::string(signal)),
        timeout: timeout.map(Duration::from_secs),
        accepts: None,
        reply: None,
    }
}

/// The same wait, which accepts what this schema says.
pub(super) fn accepting(kind: Kind, schema: &str) -> Kind {
    let schema = Schema::new(&Value::from_json(schema.as_bytes()).unwrap()).unwrap();
    match kind {
        Kind::Wait { signal, timeout, reply, .. } => {
            Kind::Wait { signal, timeout, accepts: Some(schema), reply }
        }
        other => other,
    }
}
