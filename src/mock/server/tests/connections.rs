//! Connections: kept alive, many at once, and closed in the end.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn keeps_connections_alive() {
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
async fn stands_many_connections_at_once() {
    // Far more would need a higher limit of descriptors than is usual.
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
async fn concurrent_fetches_get_tokens_of_their_own() {
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
async fn shutdown_closes_port_and_connections() {
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
async fn dropping_it_closes_port_and_connections() {
    let server = start().await;
    let address = server.origin().strip_prefix("http://").unwrap().to_owned();
    let mut idle = connect(&server).await;
    drop(server);
    assert!(read_answer(&mut idle, false).await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_start_that_is_dropped_leaves_nothing_behind() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;
    for _ in 0..20 {
        let mut start = pin!(MockAuthServer::start());
        // The drop that follows waits for the thread: it hangs if the thread doesn't stop.
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
