//! What one stub knows: its options, its script, its account and the last requests. One thread owns it, so nothing is locked.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::Options;
use crate::account::Account;
use crate::kept::Kept;
use crate::limits;
use crate::script::Script;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) account: Rc<RefCell<Account>>,
    pub(crate) script: RefCell<Script>,
    pub(crate) kept: RefCell<Kept>,
    pub(crate) large_bodies: Semaphore,
    numbers: Cell<u64>,
    began: Instant,
}

impl State {
    pub(crate) fn new(options: Options) -> Result<Self, String> {
        let script = first_script(&options)?;
        Ok(Self {
            options,
            account: Rc::default(),
            script: RefCell::new(script),
            kept: RefCell::default(),
            large_bodies: Semaphore::new(limits::LARGE_BODIES_MAX),
            numbers: Cell::new(0),
            began: Instant::now(),
        })
    }

    /// The number of a call that just came.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.set(self.numbers.get() + 1);
        self.numbers.get()
    }

    pub(crate) fn age_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub(crate) fn stats(&self, keys_listed: usize) -> Value {
        let mut stats = self.account.borrow().shown(keys_listed.min(limits::KEYS_MAX));
        if let Some(members) = stats.as_object_mut() {
            members.insert("rules".into(), self.script.borrow().counts());
            members.insert("age_us".into(), self.age_us().into());
        }
        stats
    }

    /// Puts other rules in force.
    pub(crate) fn replace_script(&self, script: &Value) -> Result<(), String> {
        self.script.replace(Script::read(script)?);
        Ok(())
    }

    /// Everything as it was in the beginning; `keep_script`: the rules in force stay, and count from the beginning.
    pub(crate) fn reset(&self, keep_script: bool) {
        self.account.borrow_mut().clear();
        self.kept.borrow_mut().clear();
        match first_script(&self.options) {
            Ok(script) if !keep_script => drop(self.script.replace(script)),
            _ => self.script.borrow_mut().forget_counts(),
        }
    }
}

fn first_script(options: &Options) -> Result<Script, String> {
    options.script.as_ref().map(Script::read).transpose().map(Option::unwrap_or_default)
}
