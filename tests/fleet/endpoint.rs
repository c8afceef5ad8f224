//! The token endpoint and the API, which know what is valid.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::now;

const LIFE_MS: u64 = 4_000;

#[derive(Clone)]
pub(crate) struct Endpoint {
    address: SocketAddr,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Default)]
struct Facts {
    tokens: HashMap<u32, Vec<Issued>>,
    token_requests: Vec<(u64, u32)>,
    api_requests: Vec<(u64, Verdict)>,
    throttled_until: u64,
    latency: Duration,
    askers: Option<mpsc::UnboundedSender<usize>>,
}

struct Issued {
    token: String,
    from: u64,
    until: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Verdict {
    Valid,
    NoToken,
    Expired,
    Revoked,
}

impl Endpoint {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Self {
            address: listener.local_addr().unwrap(),
            facts: Arc::default(),
        };
        let app = Router::new()
            .route("/token", post(answer_token_request))
            .route("/api/{tenant}", get(answer_request))
            .with_state(endpoint.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        endpoint
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn revoke_all(&self) {
        let now = now();
        for issued in self.facts().tokens.values_mut().flatten() {
            issued.until = issued.until.min(now);
        }
    }

    pub(crate) fn throttle_until(&self, time: u64) {
        self.facts().throttled_until = time;
    }

    /// Sets the latency of token responses. Returns the numbers of the processes that wait for one.
    pub(crate) fn slow_down(&self, latency: Duration) -> mpsc::UnboundedReceiver<usize> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut facts = self.facts();
        facts.latency = latency;
        facts.askers = Some(sender);
        receiver
    }

    /// Returns the number of token requests by tenant.
    pub(crate) fn token_requests(&self, start: u64, end: u64) -> HashMap<u32, usize> {
        let mut tenants = HashMap::new();
        for (time, tenant) in &self.facts().token_requests {
            if (start..end).contains(time) {
                *tenants.entry(*tenant).or_default() += 1;
            }
        }
        tenants
    }

    pub(crate) fn requests_between(&self, start: u64, end: u64) -> usize {
        let facts = self.facts();
        let times = facts.api_requests.iter().map(|(time, _)| *time);
        times.filter(|time| (start..end).contains(time)).count()
    }

    /// Returns the number of requests without a token, and with one that has expired.
    pub(crate) fn bad_requests(&self, start: u64, end: u64) -> (usize, usize) {
        let facts = self.facts();
        let of = |verdict| {
            let requests = facts.api_requests.iter();
            let found = requests.filter(|(time, it)| (start..end).contains(time) && *it == verdict);
            found.count()
        };
        (of(Verdict::NoToken), of(Verdict::Expired))
    }

    /// Returns true if one token was valid during the whole request, and for a moment before and
    /// after it: a life counts from before the token request.
    pub(crate) fn had_valid_token(&self, tenant: u32, sent: u64, end: u64) -> bool {
        let facts = self.facts();
        let mut tokens = facts.tokens.get(&tenant).into_iter().flatten();
        tokens.any(|it| it.from + 100 < sent && end + 50 < it.until)
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }
}

async fn answer_token_request(State(endpoint): State<Endpoint>, body: String) -> Response {
    let (mut tenant, mut worker) = (0, 0);
    for part in body.split('&') {
        if let Some(number) = part.strip_prefix("scope=tenant%2F") {
            tenant = number.parse().unwrap();
        } else if let Some(number) = part.strip_prefix("worker=") {
            worker = number.parse().unwrap();
        }
    }
    let latency = {
        let mut facts = endpoint.facts();
        let now = now();
        facts.token_requests.push((now, tenant));
        if now < facts.throttled_until {
            return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "5")]).into_response();
        }
        if let Some(askers) = &facts.askers {
            let _ = askers.send(worker);
        }
        facts.latency
    };
    sleep(latency).await;
    let mut facts = endpoint.facts();
    let from = now();
    let token = format!("token-{tenant}-{}", fastrand::u64(..));
    facts.tokens.entry(tenant).or_default().push(Issued {
        token: token.clone(),
        from,
        until: from + LIFE_MS,
    });
    let json = format!(r#"{{"access_token":"{token}","token_type":"Bearer","expires_in":4}}"#);
    ([(CONTENT_TYPE, "application/json")], json).into_response()
}

async fn answer_request(
    State(endpoint): State<Endpoint>,
    Path(tenant): Path<u32>,
    headers: HeaderMap,
) -> Response {
    let mut facts = endpoint.facts();
    let now = now();
    let token = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let verdict = match token.and_then(|it| it.strip_prefix("Bearer ")) {
        None => Verdict::NoToken,
        Some(token) => {
            let mut tokens = facts.tokens.get(&tenant).into_iter().flatten();
            let issued = tokens.find(|it| it.token == token);
            let issued = issued.expect("a token of another tenant");
            match issued {
                it if now < it.until => Verdict::Valid,
                it if it.until < it.from + LIFE_MS => Verdict::Revoked,
                _ => Verdict::Expired,
            }
        }
    };
    facts.api_requests.push((now, verdict));
    match verdict {
        Verdict::Valid => StatusCode::OK.into_response(),
        _ => {
            let challenge = [(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#)];
            (StatusCode::UNAUTHORIZED, challenge).into_response()
        }
    }
}
