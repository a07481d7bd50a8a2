//! The key that a data directory signs its seals and audit checkpoints with (ed25519, `docs/formats/audit.md`).
//!
//! Made once, beside the data: `audit.key` is readable by the node's user alone, `audit.pub` by whoever checks. Who can read
//! `audit.key` can sign anything (docs/adr/0025): what must stand against such a one is checked with a public key, or a head,
//! that was written down elsewhere.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::Error;
use crate::io::disk::sync_directory;
use crate::io::file::random_bytes;

/// Name of the secret half.
pub const KEY_FILE: &str = "audit.key";
/// Name of the public half: hexadecimal digits and a line end.
pub const PUBLIC_FILE: &str = "audit.pub";

/// The public half of a key.
pub type PublicKey = [u8; 32];
/// A signature.
pub type Signature = [u8; 64];

/// A key that signs.
#[derive(Debug)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key of a data directory, made when there is none.
    ///
    /// # Errors
    /// The operating system's, or the file is not ours.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let path = root.join(KEY_FILE);
        let failed = |doing: &str, error| Error::io(format!("{doing} {}", path.display()), error);
        let seed: [u8; 32] = match fs::read(&path) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                failed("use", std::io::Error::other("it does not hold 32 bytes; bring it back from a backup"))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let seed = random_bytes().map_err(|error| failed("make", error))?;
                whole(root, KEY_FILE, (&seed, 0o600)).map_err(|error| failed("write", error))?;
                seed
            }
            Err(error) => return Err(failed("read", error)),
        };
        let key = Self::from_seed(&seed).map_err(|why| failed("use", std::io::Error::other(why)))?;
        let text = format!("{}\n", hex(&key.public));
        if fs::read(root.join(PUBLIC_FILE)).ok().as_deref() != Some(text.as_bytes()) {
            whole(root, PUBLIC_FILE, (text.as_bytes(), 0o644)).map_err(|error| failed("write", error))?;
        }
        Ok(key)
    }

    /// The key that these 32 secret bytes make.
    ///
    /// # Errors
    /// In words; no seed of this length is known to do it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|error| error.to_string())?;
        let public = pair.public_key().as_ref().try_into();
        Ok(Self { public: public.map_err(|_| "a public key of another length")?, pair })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        signature.as_ref().try_into().unwrap_or([0; 64])
    }
}

/// Has the holder of this key signed the message?
pub fn is_signed(public: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, public).verify(message, signature).is_ok()
}

/// The public key that a data directory says it signs with; `None` when it says nothing, or nothing that is a key.
pub fn public_of(root: &Path) -> Option<PublicKey> {
    from_hex(fs::read_to_string(root.join(PUBLIC_FILE)).ok()?.trim())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// So many bytes from twice as many lower-case hexadecimal digits.
pub fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if digits.len() != 2 * N || !digits.bytes().all(plain) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// A small file, whole or not at all: a crash leaves the other name.
pub(crate) fn whole(dir: &Path, name: &str, (bytes, mode): (&[u8], u32)) -> std::io::Result<()> {
    let unnamed = dir.join(format!("{name}.new"));
    let _ = fs::remove_file(&unnamed);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&unnamed)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unnamed, dir.join(name))?;
    sync_directory(dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_keeps_its_key_and_what_it_signed_is_told_from_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(dir.path()).unwrap();
        let again = SigningKey::open(dir.path()).unwrap();
        assert_eq!(key.public(), again.public());
        assert_eq!(public_of(dir.path()), Some(key.public()));
        assert_eq!(fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        let signature = key.sign(b"head");
        assert!(is_signed(&key.public(), b"head", &signature));
        assert!(!is_signed(&key.public(), b"hear", &signature));
        let other = SigningKey::from_seed(&[1; 32]).unwrap();
        assert!(!is_signed(&other.public(), b"head", &signature));
        fs::write(dir.path().join(KEY_FILE), b"short").unwrap();
        assert!(SigningKey::open(dir.path()).unwrap_err().to_string().contains("32 bytes"));
    }

    #[test]
    fn digits_are_read_as_they_are_written() {
        assert_eq!(from_hex::<3>(&hex(&[0, 255, 16])), Some([0, 255, 16]));
        for wrong in ["", "00ff1", "00ff1g", "00FF10", "00ff1000"] {
            assert_eq!(from_hex::<3>(wrong), None, "{wrong}");
        }
    }
}
