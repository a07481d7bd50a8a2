//! Faults from inside, for tests: io_uring can not be reached by interposers (RELIABILITY 0.2). Counted over all files of a
//! thread; nothing goes wrong unless asked for.

use std::cell::RefCell;
use std::io;

thread_local! {
    static PLAN: RefCell<Plan> = RefCell::new(Plan::default());
}

/// What is to go wrong on this thread, counted over all files.
#[derive(Debug, Default)]
struct Plan {
    writes: u64,
    syncs: u64,
    fail_write: Option<(u64, i32)>,
    fail_sync: Option<u64>,
}

/// The tests' hand on the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults;

impl Faults {
    /// Everything works, counts are zero.
    pub(crate) fn clear() {
        PLAN.with_borrow_mut(|plan| *plan = Plan::default());
    }

    /// The `nth` write from now on fails with `errno`.
    pub(crate) fn fail_write(nth: u64, errno: i32) {
        PLAN.with_borrow_mut(|plan| plan.fail_write = Some((plan.writes + nth, errno)));
    }

    /// The `nth` sync from now on fails; later ones "succeed", as the kernel's do.
    pub(crate) fn fail_sync(nth: u64) {
        PLAN.with_borrow_mut(|plan| plan.fail_sync = Some(plan.syncs + nth));
    }

    /// Syncs asked for so far.
    pub(crate) fn syncs() -> u64 {
        PLAN.with_borrow(|plan| plan.syncs)
    }

    pub(super) fn on_write(self) -> io::Result<()> {
        PLAN.with_borrow_mut(|plan| {
            plan.writes += 1;
            match plan.fail_write {
                Some((nth, errno)) if nth == plan.writes => Err(io::Error::from_raw_os_error(errno)),
                _ => Ok(()),
            }
        })
    }

    pub(super) fn on_sync(self) -> io::Result<()> {
        PLAN.with_borrow_mut(|plan| {
            plan.syncs += 1;
            if plan.fail_sync == Some(plan.syncs) {
                return Err(io::Error::from_raw_os_error(5));
            }
            Ok(())
        })
    }
}
