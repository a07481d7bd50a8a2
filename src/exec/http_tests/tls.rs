//! TLS on the way out: who is trusted, under which name, and that it is not left by a redirect.

use super::*;

/// Serves one request over TLS for each connection, as `localhost`.
fn secure(answers: Vec<String>) -> (SocketAddr, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for answer in answers {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, cert.pem())
}

// F417
#[test]
fn tls_is_spoken_with_those_who_are_trusted_under_their_own_name_and_never_left() {
    let (address, pem) = secure(vec![ok("7"), String::new(), String::new(), to(302, "http://localhost/")]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, pem).unwrap();
    let port = address.port();
    let trusting = Settings { ca_file: Some(file), ..settings(&["127.0.0.1"]) };
    let lookup = || -> Lookup { Box::new(move |_, _| Box::pin(async move { Ok(vec![address]) })) };
    let url = |name: &str| format!(r#"{{"url": "https://{name}:{port}/"}}"#);
    run((trusting.clone(), Secrets::default(), lookup()), async |http| {
        let answer = http.call(call(&url("localhost"))).await.unwrap();
        assert_eq!(answer.get("body"), Some(&Value::Int(7)));
        assert_eq!(refused(&http, &url("other.example")).await, "tls_failed");
    });
    run((settings(&["127.0.0.1"]), Secrets::default(), lookup()), async |http| {
        assert_eq!(refused(&http, &url("localhost")).await, "tls_failed", "nobody vouches for it");
    });
    run((trusting, Secrets::default(), lookup()), async |http| {
        assert_eq!(refused(&http, &url("localhost")).await, "redirect_refused");
    });
}
