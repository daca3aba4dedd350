//! The encrypted listener: a wildcard domain for previews, HTTP/1.1 and HTTP/2.

use crate::harness::{TestServer, options, within};
use crate::peers::{self, Shared};
use crate::previews::site;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sandcrab_server::{ServeError, Server, TlsOptions};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Writes a fresh wildcard certificate and its key.
fn certificate(dir: &Path) -> CertificateDer<'static> {
    let names = ["*.p.example".to_owned(), "api.example".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

async fn connect(
    server: &TestServer,
    trusted: &CertificateDer<'static>,
    name: &str,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(server.started.tls_address.unwrap()).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c04_previews_of_an_own_domain_are_encrypted_in_http1_and_http2() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = certificate(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let tls = TlsOptions { listen: "127.0.0.1:0".into(), cert, key };
    let data = dir.path().join("data");
    let with_tls = sandcrab_server::ServeOptions {
        tls: Some(tls),
        preview_domain: Some("p.example".into()),
        allow_hosts: vec!["api.example".into()],
        ..options(&data)
    };
    let server = TestServer::start_with(with_tls, Arc::new(peers::good(Shared::default()))).await;
    let port = site().await;
    let exposed = server.post("/v1/sandboxes/a/ports", json!({ "port": port })).await.ok();
    let url = exposed["url"].as_str().unwrap();
    let host = url.strip_prefix("https://").unwrap().strip_suffix('/').unwrap();
    assert!(host.ends_with(".p.example"), "{url}");
    let check = |seen: &Value| {
        assert_eq!(
            (&seen["headers"]["host"], &seen["headers"]["x-forwarded-proto"]),
            (&json!(host), &json!("https"))
        );
        assert_eq!(seen["headers"]["x-forwarded-port"], "443");
    };

    let stream = connect(&server, &trusted, host, &["http/1.1"]).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri("/one").header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let answer = within("the answer", sender.send_request(request)).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    check(&serde_json::from_slice(&seen).unwrap());

    let stream = connect(&server, &trusted, host, &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri(format!("https://{host}/two")).body(Empty::<Bytes>::new()).unwrap();
    let answer = within("the answer", sender.send_request(request)).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    check(&serde_json::from_slice(&seen).unwrap());

    // The API answers to its own name there, and to no preview's.
    let stream = connect(&server, &trusted, "api.example", &["h2"]).await.unwrap();
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (uri, status) in [
        ("https://api.example/health", 200),
        ("https://api.example/v1/sandboxes", 401),
        ("https://other.p.example/health", 403),
    ] {
        let request = Request::builder().uri(uri).body(Empty::<Bytes>::new()).unwrap();
        let answer = within("the answer", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), status, "{uri}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_after_a_hangup_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let first = certificate(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let tls = TlsOptions { listen: "127.0.0.1:0".into(), cert: cert.clone(), key };
    let data = dir.path().join("data");
    let with_tls = sandcrab_server::ServeOptions { tls: Some(tls.clone()), ..options(&data) };
    let server = TestServer::start_with(with_tls, Arc::new(peers::good(Shared::default()))).await;
    let shown = async || {
        let stream = connect(&server, &first, "x.p.example", &["http/1.1"]).await;
        stream.is_ok()
    };
    assert!(shown().await);
    let hang_up = || {
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::HUP).unwrap();
    };
    let second = certificate(dir.path());
    hang_up();
    within("the new certificate is shown", async {
        while connect(&server, &second, "x.p.example", &["http/1.1"]).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!shown().await);
    std::fs::write(&cert, "no certificate").unwrap();
    hang_up();
    assert!(connect(&server, &second, "x.p.example", &["http/1.1"]).await.is_ok());
    let other = dir.path().join("other");
    let bad = sandcrab_server::ServeOptions { tls: Some(tls), ..options(&other) };
    let refused = Server::start(bad.resolve().unwrap(), Arc::new(peers::good(Shared::default()))).await;
    assert!(matches!(refused.err(), Some(ServeError::Tls(_))));
}
