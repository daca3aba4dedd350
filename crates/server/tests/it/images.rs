//! Images over a driver that has only one: how they are named, and refused. Builds are tried with the native driver, by
//! the command line's tests.

use crate::harness::TestServer;
use crate::peers::{self, Shared};
use http::Method;
use serde_json::json;

#[tokio::test]
async fn images_are_listed_and_the_hosts_is_simply_there() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    server.exec("a", "true").await.ok();
    let images = server.get("/v1/images").await.ok();
    let host = json!({ "name": "host", "status": "ready", "key": "host", "sandboxes": 1 });
    assert_eq!(images["images"], json!([host]));
    assert_eq!(server.request(Method::PUT, "/v1/images/host").send().await.ok(), host);
    let removed = server.delete("/v1/images/host").await.ok();
    assert_eq!((&removed["name"], &removed["removed"]), (&json!("host"), &json!(false)));
    assert_eq!(server.get("/v1/images").await.ok()["images"], json!([host]));
    let unknown = server.request(Method::GET, "/v1/images").key(None).send().await;
    assert_eq!(unknown.failure(), (401, "UNAUTHORIZED".into()));
}

#[tokio::test]
async fn x02_an_unknown_image_is_a_400_that_names_the_field_and_those_that_there_are() {
    let server = TestServer::start(peers::good(Shared::default())).await;
    for (method, path) in [(Method::PUT, "/v1/images/no%2Fsuch"), (Method::DELETE, "/v1/images/pyton")] {
        let answer = server.request(method, path).send().await;
        assert_eq!(answer.field(), "name");
        assert_eq!(answer.json()["context"]["images"], json!(["host"]));
    }
    let answer = server.put("/v1/sandboxes/a", json!({ "image": "pyton" })).await;
    assert_eq!(answer.field(), "image");
    assert_eq!(answer.json()["context"]["images"], json!(["host"]));
    let nothing = server.get("/v1/sandboxes").await.ok();
    assert_eq!(nothing["sandboxes"], json!([]));
}
