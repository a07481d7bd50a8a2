//! The certificate that the listener shows, and how it is swapped while the node runs.
//!
//! TLS 1.2 and 1.3 with the ring provider, ALPN `h2` or `http/1.1` and nothing else. Connections that are open keep the
//! certificate they began with; what connects after a reload sees the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::Error;

/// Where the certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// `tls.certificate`: the chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// `tls.key`: its private key, PEM (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
}

/// What handshakes are made with.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them cannot be read, or they do not belong together.
    pub fn open(files: &Files) -> Result<Self, Error> {
        Ok(Self { current: ArcSwap::from(read(files)?) })
    }

    /// Reads the files, and takes them for all handshakes to come.
    ///
    /// # Errors
    /// As for [`open`](Self::open); then everything stays as it was.
    pub fn reload(&self, files: &Files) -> Result<(), Error> {
        self.current.store(read(files)?);
        Ok(())
    }

    /// For one handshake.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }
}

fn bad(key: &'static str, path: &Path, problem: impl ToString) -> Error {
    Error { key, path: path.to_owned(), problem: problem.to_string() }
}

fn read(files: &Files) -> Result<Arc<ServerConfig>, Error> {
    let wrong = |problem: &dyn std::fmt::Display| bad("tls.certificate", &files.certificate, problem);
    let text = std::fs::read(&files.certificate).map_err(|error| wrong(&error))?;
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"no certificate (PEM) stands in it"));
    }
    let text = std::fs::read(&files.key).map_err(|error| bad("tls.key", &files.key, error))?;
    let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| bad("tls.key", &files.key, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| wrong(&error))?;
    // This is also where a key that does not belong to the certificate is found.
    let mut config = builder
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| bad("tls.key", &files.key, error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate and its key in files.
    fn files(directory: &Path, name: &str) -> Files {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let files = Files {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn files_that_do_not_do_are_named_and_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (files(directory.path(), "one"), files(directory.path(), "two"));
        let tls = Tls::open(&one).unwrap();
        let before = tls.current();
        let nowhere = directory.path().join("nowhere");
        let empty = directory.path().join("empty");
        std::fs::write(&empty, "").unwrap();
        for (broken, key) in [
            (Files { certificate: nowhere.clone(), ..one.clone() }, "tls.certificate"),
            (Files { certificate: empty.clone(), ..one.clone() }, "tls.certificate"),
            (Files { key: nowhere, ..one.clone() }, "tls.key"),
            (Files { key: empty, ..one.clone() }, "tls.key"),
            (Files { key: two.key.clone(), ..one }, "tls.key"),
        ] {
            let error = tls.reload(&broken).unwrap_err();
            assert_eq!(error.key, key, "{error}");
            assert!(Arc::ptr_eq(&before, &tls.current()));
        }
        tls.reload(&two).unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current()));
    }
}
