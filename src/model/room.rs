//! Why nothing new is begun on this node: there is no room for it on the disk.
//!
//! Runs that were accepted go on. Each reason names what was measured, the configuration key that bounds it, and its value.

/// What there is too little or too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The file system of the data directory is nearly full.
    Disk,
    /// The history of finished runs is as large as it may be.
    History,
    /// Journals grow faster than they are moved to history.
    Journal,
}

impl Lack {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Disk, Self::History, Self::Journal];

    /// Its stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Disk => "disk_low",
            Self::History => "history_full",
            Self::Journal => "journal_behind",
        }
    }

    /// The configuration key that bounds it.
    pub fn key(self) -> &'static str {
        match self {
            Self::Disk => "storage.free_bytes_min",
            Self::History => "history.bytes_max",
            Self::Journal => "journal.unmoved_bytes_max",
        }
    }
}

/// Why nothing new is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What is lacking.
    pub lack: Lack,
    /// Bytes that were measured.
    pub value: u64,
    /// Bytes that the key says.
    pub limit: u64,
    /// Bytes with which new work is taken again.
    pub again: u64,
}

/// In one sentence, with value, limit and key.
impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lack, value, limit, again } = self;
        let key = lack.key();
        match lack {
            Lack::Disk => {
                write!(
                    f,
                    "the file system of the data directory has {value} bytes free, {key} is {limit}; "
                )?;
                write!(f, "new work is taken again when {again} are free")
            }
            Lack::History => {
                write!(f, "the history of finished runs has {value} bytes, {key} is {limit}; ")?;
                write!(f, "new work is taken again when it has {again}")
            }
            Lack::Journal => {
                write!(f, "{value} bytes of the journal wait to be moved to history, {key} is {limit}; ")?;
                write!(f, "new work is taken again when {again} wait")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_names_its_value_its_limit_and_its_key() {
        for lack in Lack::ALL {
            let said = NoRoom { lack, value: 17, limit: 23, again: 29 }.to_string();
            assert!(["17", "23", "29", lack.key()].iter().all(|part| said.contains(part)), "{said}");
        }
    }
}
