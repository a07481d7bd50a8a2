//! Bundles: files that anybody may have made.

use sha2::{Digest as _, Sha256};

use crate::replay::shadow::{Change, shadow};
use crate::replay::{Bundle, Error, freeze, state};

/// A file: read or refused; what is read is written the same, and what it holds is verified, shown and run again, or refused.
pub(super) fn bundle(bytes: &[u8]) {
    let _ = Bundle::from_bytes(bytes);
    // What a stranger would see to: its size and its checksum are right.
    let mut sealed = bytes.to_vec();
    if sealed.len() < 48 {
        return;
    }
    let size = sealed.len() as u64;
    sealed[8..16].copy_from_slice(&size.to_le_bytes());
    let end = sealed.len() - 32;
    let sum: [u8; 32] = Sha256::digest(&sealed[..end]).into();
    sealed[end..].copy_from_slice(&sum);
    let Ok(bundle) = Bundle::from_bytes(&sealed) else { return };
    assert_eq!(Bundle::from_bytes(&bundle.to_bytes().unwrap()).unwrap(), bundle);
    let Ok((record, _)) = bundle.record() else { return };
    let Ok(mut documents) = bundle.documents(&record) else { return };
    let verified = freeze(&record, &mut documents, None);
    let last = state::at(&record, &mut documents, record.last_seq());
    if let Ok(verified) = &verified {
        assert_eq!(last.unwrap().state_hash().unwrap(), verified.hash);
    }
    match shadow(&record, documents, Change::default()) {
        Ok(report) => assert_eq!(report.calls_made, 0),
        Err(error) => assert!(!matches!(error, Error::Diverged(_)), "{error}"),
    }
}
