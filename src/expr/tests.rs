//! Tests of the whole module: what expressions give, where they stop, and that nothing makes them fall over.

mod bombs;
mod bounds;
mod differential;
mod documented;
mod functions;
mod random;
mod table;

use super::{Budget, Env, Error, Program, Reference};
use crate::limits;
use crate::model::Value;

/// Roots by their names, as in the data of docs/expressions.md.
pub(super) struct Roots<'v> {
    pub(super) data: &'v Value,
    pub(super) references: Vec<Reference>,
}

impl Env for Roots<'_> {
    fn value(&self, index: usize) -> Value {
        let member = |root: &str| self.data.get(root).cloned().unwrap_or_default();
        match &self.references[index] {
            Reference::Inputs => member("inputs"),
            Reference::Node(id) => member("nodes").get(id).cloned().unwrap_or_default(),
            Reference::Output(name) => member("outputs").get(name).cloned().unwrap_or_default(),
            Reference::Input => member("input"),
            Reference::EdgeOutput => member("output"),
            Reference::Item => member("item"),
            Reference::Index => member("index"),
            Reference::Iteration => member("iteration"),
            Reference::Run => member("run"),
        }
    }
}

pub(super) fn run(source: &str, data: &Value) -> Result<Value, Error> {
    let program = Program::compile(source)?;
    let env = Roots { data, references: program.references().to_vec() };
    program.evaluate(&env, &mut Budget { steps: limits::EXPRESSION_STEPS_MAX })
}

/// With `input` as the only root.
pub(super) fn run_on(source: &str, input: &str) -> Result<Value, Error> {
    let input = Value::from_json(input.as_bytes()).unwrap();
    run(source, &Value::map([("input", input)]))
}

pub(super) fn eval(source: &str) -> Result<Value, Error> {
    run(source, &Value::Null)
}

pub(super) fn code(source: &str) -> &'static str {
    match eval(source) {
        Ok(value) => panic!("{source} gave {value}"),
        Err(error) => error.code,
    }
}

#[test]
fn a_program_can_be_shared_and_knows_its_source_and_names() {
    fn shared<T: Send + Sync + std::fmt::Debug>(_: &T) {}
    let source = "inputs.a + nodes.x.output.b + inputs.c + nodes[\"y-z\"].output + outputs.t + item";
    let program = Program::compile(source).unwrap();
    shared(&program);
    assert_eq!(program.source(), source);
    assert_eq!(
        program.references(),
        [
            Reference::Inputs,
            Reference::Node("x".into()),
            Reference::Node("y-z".into()),
            Reference::Output("t".into()),
            Reference::Item
        ]
    );
}

#[test]
fn values_are_fetched_once_and_only_when_they_are_needed() {
    struct Counting(std::cell::RefCell<Vec<usize>>);
    impl Env for Counting {
        fn value(&self, index: usize) -> Value {
            self.0.borrow_mut().push(index);
            Value::Int(1)
        }
    }
    let program = Program::compile("input + input > 1 ? input : item").unwrap();
    let env = Counting(Default::default());
    assert_eq!(program.evaluate(&env, &mut Budget { steps: 100 }), Ok(Value::Int(1)));
    assert_eq!(*env.0.borrow(), [0]);
}

#[test]
fn a_path_shares_what_it_leads_to() {
    let data = Value::from_json(br#"{"input": {"list": [1, 2, 3]}}"#).unwrap();
    let Value::List(found) = run("input.list", &data).unwrap() else { panic!("no list") };
    let Some(Value::List(original)) = data.get("input").unwrap().get("list") else { panic!("no list") };
    assert!(std::sync::Arc::ptr_eq(&found, original));
}

#[test]
fn errors_say_where_in_bytes() {
    for (source, part) in [
        ("input.a + foo", "foo"),
        ("\"ääää\" + foo", "foo"),
        ("[1, 2].map(x, y)", "y"),
        ("1 +\n  foo", "foo"),
        ("\"é\" == sizes(1)", "(1)"),
        ("1 + #", "#"),
    ] {
        let error = Program::compile(source).unwrap_err();
        assert_eq!(error.offset, source.find(part), "{source}: {error}");
    }
    // At run time: the operation that failed.
    let error = eval("\"é\" == \"é\" ? 1 + 1 / 0 : 2").unwrap_err();
    assert_eq!(error.offset, "\"é\" == \"é\" ? 1 + 1 / 0 : 2".find('/'));
}

#[test]
fn names_nobody_knows_come_with_the_nearest_one() {
    for (source, near) in [
        ("inptus.x", "`inputs`"),
        ("iterm.x", "`item`"),
        ("[1].map(value, valeu)", "`value`"),
        ("sise([1])", "`size`"),
        ("[1].lenght()", "`size`"),
        ("\"a\".startswith(\"a\")", "`startsWith`"),
        ("sortby([1], x, x)", "`sort_by`"),
        ("nodes.a.outptu", "nodes.a.output"),
        ("nodes.my-node.output", "nodes[\"<id>\"].output"),
        ("nodes", "nodes.<id>.output"),
        ("outputs", "outputs.<name>"),
        ("now()", "no clock"),
    ] {
        let error = Program::compile(source).unwrap_err();
        assert!(error.message.contains(near), "{source}: {error}");
    }
}
