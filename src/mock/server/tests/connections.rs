//! Tests of connections: reuse, concurrency and shutdown.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn connections_are_kept_alive() {
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    let mut stream = connect(&server).await;
    for _ in 0..50 {
        let request =
            format!("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
    }
    assert_eq!(server.api_requests(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_are_served_at_once() {
    // Many more would exceed the usual limit of descriptors.
    let (clients, rounds) = (200, 5);
    let server = start().await;
    let token = post_form(&server, FORM).await.token();
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        let address = server.origin().strip_prefix("http://").unwrap().to_owned();
        let request =
            format!("GET /api HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
        tasks.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
            for _ in 0..rounds {
                stream.write_all(request.as_bytes()).await.unwrap();
                assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 200);
            }
        });
    }
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
    assert_eq!(server.api_requests(), clients * rounds);
    assert_eq!(server.api_log().len(), clients * rounds);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_requests_get_different_tokens() {
    let server = start().await;
    let mut tasks = JoinSet::new();
    for tenant in 0..50 {
        let address = server.origin().strip_prefix("http://").unwrap().to_owned();
        tasks.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
            let form = format!("{FORM}&scope=tenant/{tenant}");
            stream
                .write_all(&raw("POST", "/token", &[FORM_TYPE], form.as_bytes()))
                .await
                .unwrap();
            let answer = read_answer(&mut stream, false).await.unwrap();
            assert_eq!(answer.json()["scope"], format!("tenant/{tenant}"));
            answer.token()
        });
    }
    let tokens: HashSet<_> = tasks.join_all().await.into_iter().collect();
    assert_eq!((tokens.len(), server.tokens_issued()), (50, 50));
}

#[tokio::test]
async fn shutdown_closes_the_port_and_connections() {
    let server = MockAuthServer::builder()
        .api_latency(secs(60))
        .start()
        .await
        .unwrap();
    let address = server.origin().strip_prefix("http://").unwrap().to_owned();
    let mut idle = connect(&server).await;
    let mut busy = connect(&server).await;
    busy.write_all(b"GET /upload HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    wait_until(|| server.api_requests() == 1).await;
    server.shutdown().await;
    assert!(read_answer(&mut idle, false).await.is_err());
    assert!(read_answer(&mut busy, false).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn dropping_the_server_closes_the_port_and_connections() {
    let server = start().await;
    let address = server.origin().strip_prefix("http://").unwrap().to_owned();
    let mut idle = connect(&server).await;
    drop(server);
    assert!(read_answer(&mut idle, false).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn dropping_the_start_future_stops_the_thread() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    for _ in 0..20 {
        let mut start = pin!(MockAuthServer::start());
        // Dropping the future waits for the thread, so the test hangs if the thread does not stop.
        let _ = start
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()));
    }
}

#[tokio::test]
async fn servers_do_not_share_tokens() {
    let (one, other) = (start().await, start().await);
    post_form(&one, FORM).await;
    assert_eq!(get_api(&other, "mock-access-token-1").await.status, 401);
}
