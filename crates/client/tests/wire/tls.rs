//! A server by https.

use crate::peer::json_answer;
use sandcrab_client::{Client, ClientError, ClientOptions, ConnectError};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// A server for `localhost` whose certificate vouches for itself; the certificate as a PEM file.
async fn serve(directory: &Path) -> (String, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let file = directory.join("ca.pem");
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust this server hangs up here.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            _ = stream.read(&mut [0; 4096]).await;
            let answer = json_answer(&json!({ "status": "ok", "version": "1" }));
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (format!("https://localhost:{port}"), file)
}

#[tokio::test]
async fn https_is_spoken_to_a_server_that_a_certificate_vouches_for() {
    let directory = tempfile::tempdir().unwrap();
    let (url, ca_file) = serve(directory.path()).await;
    let mut options = ClientOptions::new(&url);
    options.ca_file = Some(ca_file.clone());
    assert_eq!(Client::new(options).unwrap().health().await.unwrap().version, "1");

    // The same server under a name that the certificate does not hold.
    let mut options = ClientOptions::new(url.replace("localhost", "127.0.0.1"));
    options.ca_file = Some(ca_file);
    let error = Client::new(options).unwrap().health().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { source: ConnectError::Tls(_), .. }), "{error:?}");
}

#[tokio::test]
async fn https_without_trust_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (url, _) = serve(directory.path()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let (_, other) = serve(elsewhere.path()).await;
    let mut options = ClientOptions::new(&url);
    options.ca_file = Some(other);
    let error = Client::new(options).unwrap().health().await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { source: ConnectError::Tls(_), .. }), "{error:?}");

    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let mut options = ClientOptions::new(&url);
    options.ca_file = Some(empty);
    assert!(matches!(
        Client::new(options).unwrap_err(),
        ClientError::Connect { source: ConnectError::NoCertificates(_), .. }
    ));
}
