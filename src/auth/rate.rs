//! How many requests one caller may send: a token, or an address where there are no tokens.
//!
//! The count is one number for each caller, shared by all control cores: when the next request would be due if they came
//! evenly (GCRA). Taking one is a compare-and-swap, so the limit is exact whichever cores the connections fall on. The
//! table has a fixed size: a caller takes the cell of one who has been quiet long enough to have all of its allowance
//! back. When all cells it could have are busy it shares one, so that a crowd is held back rather than let through.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Caller;
use crate::limits;

/// What one caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `limits.requests_per_second`, at least 1.
    pub per_second: u64,
    /// `limits.requests_burst`, at least 1: so many at once, by one who has been quiet.
    pub burst: u64,
}

/// What all callers have taken; shared by all control cores.
#[derive(Debug)]
pub struct Allowances {
    policy: Policy,
    /// Random, so that nobody can choose to share a cell with somebody.
    hasher: RandomState,
    cells: Box<[Cell]>,
}

#[derive(Debug, Default)]
struct Cell {
    /// Hash of whoever has it; 0 is nobody.
    owner: AtomicU64,
    /// When its allowance is whole again, nanoseconds on the monotonic clock.
    whole_at_ns: AtomicU64,
}

/// Cells that one caller may have.
const CHOICES: usize = 8;
const SECOND_NS: u64 = 1_000_000_000;

/// Where a caller stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it may do.
    pub policy: Policy,
    /// Requests it may send now.
    pub left: u64,
    /// Until its allowance is whole.
    pub whole_in_ns: u64,
    /// It has sent too many, and may send one then.
    pub refused_for_ns: Option<u64>,
}

/// Who is counted.
#[derive(Clone, Copy, Debug, Hash)]
pub enum Who<'a> {
    /// By the name of its token.
    Token(&'a str),
    /// By where it comes from.
    Address(u128),
    /// By workspace and workflow.
    Workflow(&'a str, &'a str),
}

impl<'a> Who<'a> {
    /// The caller's token, else its address; those of an IPv6 network of 64 bits are one.
    pub fn of(caller: &'a Caller, peer: IpAddr) -> Self {
        match (&caller.token, peer.to_canonical()) {
            (Some(token), _) => Self::Token(token),
            (None, IpAddr::V4(address)) => Self::Address(u128::from(u32::from(address))),
            (None, IpAddr::V6(address)) => Self::Address(u128::from(address) >> 64 << 64),
        }
    }
}

impl Allowances {
    /// Everybody has everything.
    pub fn new(policy: Policy) -> Self {
        let cells = (0..limits::RATE_CELLS).map(|_| Cell::default()).collect();
        Self { policy, hasher: RandomState::new(), cells }
    }

    /// Takes one request of this caller's allowance.
    pub fn take(&self, who: Who<'_>, now_us: u64) -> Standing {
        self.take_within(who, self.policy, now_us)
    }

    /// The same by another policy, which must be the caller's each time.
    pub fn take_within(&self, who: Who<'_>, policy: Policy, now_us: u64) -> Standing {
        // The clock starts at 0, where a cell that was never used is quiet.
        let now = now_us.saturating_mul(1_000).saturating_add(1);
        let each = (SECOND_NS / policy.per_second.max(1)).max(1);
        let most = each.saturating_mul(policy.burst);
        let standing = |ahead: u64, refused_for_ns| Standing {
            policy,
            left: most.saturating_sub(ahead) / each,
            whole_in_ns: ahead,
            refused_for_ns,
        };
        let Some(cell) = self.cell(self.hasher.hash_one(who).max(1), now) else { return standing(0, None) };
        let mut whole_at = cell.whole_at_ns.load(Ordering::Relaxed);
        loop {
            let ahead = whole_at.saturating_sub(now);
            let after = ahead.saturating_add(each);
            if after > most {
                return standing(ahead, Some(after - most));
            }
            let next = now.saturating_add(after);
            let swapped =
                cell.whole_at_ns.compare_exchange_weak(whole_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return standing(after, None),
                Err(found) => whole_at = found,
            }
        }
    }

    /// The caller's cell: its own, else that of somebody who is quiet, else one that it shares.
    fn cell(&self, owner: u64, now: u64) -> Option<&Cell> {
        let first =
            usize::try_from(owner).unwrap_or_default() % (self.cells.len() / CHOICES).max(1) * CHOICES;
        let choices = self.cells.get(first..first + CHOICES)?;
        if let Some(own) = choices.iter().find(|cell| cell.owner.load(Ordering::Acquire) == owner) {
            return Some(own);
        }
        for cell in choices {
            let before = cell.owner.load(Ordering::Acquire);
            let quiet = cell.whole_at_ns.load(Ordering::Relaxed) < now;
            let swap = |cell: &Cell| {
                cell.owner.compare_exchange(before, owner, Ordering::AcqRel, Ordering::Acquire).is_ok()
            };
            if before == owner || (quiet && swap(cell)) {
                return Some(cell);
            }
        }
        choices.get(usize::try_from(owner >> 32).unwrap_or_default() % CHOICES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 5_000_000;

    fn allowances(per_second: u64, burst: u64) -> Allowances {
        Allowances::new(Policy { per_second, burst })
    }

    #[test]
    fn a_burst_is_let_through_then_the_rate_and_others_are_not_touched() {
        let all = allowances(10, 5);
        let (ci, other) = (Who::Token("ci"), Who::Address(1));
        for left in (0..5).rev() {
            let standing = all.take(ci, NOW_US);
            assert_eq!((standing.left, standing.refused_for_ns), (left, None));
        }
        let refused = all.take(ci, NOW_US);
        assert_eq!((refused.left, refused.refused_for_ns), (0, Some(100_000_000)));
        assert_eq!(all.take(other, NOW_US).refused_for_ns, None);
        // A tenth of a second later there is one more, and no more than that.
        assert!(all.take(ci, NOW_US + 100_000).refused_for_ns.is_none());
        assert!(all.take(ci, NOW_US + 100_000).refused_for_ns.is_some());
        // What was refused did not count.
        let whole = all.take(ci, NOW_US + 700_000);
        assert_eq!((whole.left, whole.whole_in_ns), (4, 100_000_000));
    }

    #[test]
    fn the_limit_is_exact_from_many_threads() {
        let all = allowances(1, 1_000);
        let through: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let one = || all.take(Who::Token("ci"), NOW_US).refused_for_ns.is_none();
                        (0..1_000).filter(|_| one()).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(through, 1_000);
    }

    #[test]
    fn a_full_table_holds_strangers_back_and_forgets_who_is_quiet() {
        let all = allowances(1, 1);
        let strangers = limits::RATE_CELLS as u128 * 4;
        let through =
            (0..strangers).filter(|n| all.take(Who::Address(*n), NOW_US).refused_for_ns.is_none()).count();
        assert!(through <= limits::RATE_CELLS, "{through}");
        assert!(through > limits::RATE_CELLS / 2, "{through}");
        let later = NOW_US + 2_000_000;
        assert!(all.take(Who::Address(strangers + 1), later).refused_for_ns.is_none());
    }

    #[test]
    fn addresses_of_one_network_are_one_caller() {
        let of = |text: &str| format!("{:?}", Who::of(&Caller::ANYONE, text.parse().unwrap()));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.2"), of("10.0.0.1"));
    }
}
