//! Planted bugs, for proving that the tests would see them: a harness that cannot fail proves nothing.
//!
//! Nothing of this is in an ordinary build: [`is`] is a constant there. In the library's own tests a thread plants one
//! for itself ([`plant`]); in a build with the feature `failpoints` the environment does, `AOB_MUTANT=name`.

/// What may be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Acknowledge what was written and is not yet synced.
    AckBeforeSync,
    /// After a sync that failed, sync again and believe it.
    RetrySync,
    /// Never sync the journal.
    NoSync,
    /// Take an answer for the attempt under way, whichever attempt it is of.
    StaleLease,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AckBeforeSync, Self::RetrySync, Self::NoSync, Self::StaleLease];

    /// Its name in `AOB_MUTANT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::RetrySync => "retry-sync",
            Self::NoSync => "no-sync",
            Self::StaleLease => "stale-lease",
        }
    }
}

/// Is this one planted?
#[cfg(not(any(test, feature = "failpoints")))]
#[inline]
pub const fn is(_: Mutant) -> bool {
    false
}

/// Is this one planted?
#[cfg(all(not(test), feature = "failpoints"))]
pub fn is(mutant: Mutant) -> bool {
    static PLANTED: std::sync::OnceLock<Option<Mutant>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var("AOB_MUTANT").ok()?;
        Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
    });
    *planted == Some(mutant)
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Is this one planted?
#[cfg(test)]
pub fn is(mutant: Mutant) -> bool {
    PLANTED.get() == Some(mutant)
}

/// Plants one in this thread, or none.
#[cfg(test)]
pub(crate) fn plant(mutant: Option<Mutant>) {
    PLANTED.set(mutant);
}
