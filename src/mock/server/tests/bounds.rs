//! Tests of the limits on kept tokens, records and bodies.

use std::time::Instant;

use http::{Method, StatusCode};

use super::*;
use crate::mock::server::ClientAuthenticationSeen;
use crate::mock::server::record::{ApiLog, KEPT_BODIES, KEPT_RECORDS, TokenLog};
use crate::mock::server::tokens::Tokens;

#[test]
fn valid_tokens_are_never_dropped() {
    let mut tokens = Tokens::new(0);
    let now = Instant::now();
    let (_, oldest) = tokens.issue(now, secs(900), None);
    for _ in 0..100_100 {
        tokens.issue(now, secs(1), None);
    }
    assert!(tokens.look_up(&oldest, now).unwrap().valid);

    let later = now + secs(1000);
    let (number, newest) = tokens.issue(later, secs(900), None);
    assert_eq!((number, tokens.issued()), (100_102, 100_102));
    let dropped = tokens.look_up(&oldest, later).unwrap();
    assert_eq!((dropped.number, dropped.valid), (1, false));
    assert!(tokens.look_up(&newest, later).unwrap().valid);
    tokens.revoke_all();
    assert!(!tokens.look_up(&newest, later).unwrap().valid);
}

#[test]
fn the_token_log_drops_the_oldest_records() {
    let mut log = TokenLog::default();
    for number in 0..KEPT_RECORDS + 3 {
        log.push(TokenRecord {
            at: Duration::ZERO,
            status: StatusCode::OK,
            client_authentication: ClientAuthenticationSeen::None,
            scope: None,
            params: [].into(),
            accept: None,
            token_number: Some(number),
        });
    }
    let kept = log.to_vec();
    assert_eq!(
        (kept.len(), kept[0].token_number()),
        (KEPT_RECORDS, Some(3))
    );
}

#[test]
fn the_api_log_drops_the_oldest_bodies_and_records() {
    let record = |body: &bytes::Bytes| ApiRecord {
        at: Duration::ZERO,
        method: Method::GET,
        path: "/api".into(),
        query: None,
        status: StatusCode::OK,
        has_authorization: false,
        token_number: None,
        scope: None,
        body_len: body.len(),
        body: Some(body.clone()),
    };
    let mut log = ApiLog::default();
    let body = bytes::Bytes::from(vec![0; KEPT_BODIES / 4]);
    for _ in 0..6 {
        log.push(record(&body));
    }
    let bodies = |log: &ApiLog| -> Vec<bool> {
        log.to_vec()
            .iter()
            .map(|record| record.body().is_some())
            .collect()
    };
    assert_eq!(bodies(&log), [false, false, true, true, true, true]);

    let small = bytes::Bytes::from_static(b"x");
    for _ in 0..KEPT_RECORDS - 1 {
        log.push(record(&small));
    }
    let kept = bodies(&log);
    assert_eq!(kept.len(), KEPT_RECORDS);
    // The first small body displaced the third large one, and the first five records were dropped.
    assert!(kept.iter().all(|body| *body));
}
