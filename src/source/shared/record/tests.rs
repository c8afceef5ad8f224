use proptest::prelude::*;

use super::*;
use crate::source::shared::identity::{FleetIdentity, Names};
use crate::token::request::TokenRequest;

fn names() -> Names {
    Names::new(
        &FleetIdentity::new("https://a.example/", "client"),
        &[1; 32],
    )
    .unwrap()
}

fn keys() -> SealingKeys {
    SealingKeys::new("new", [2; 32])
        .unwrap()
        .and_open("old", [3; 32])
        .unwrap()
}

const LEASE: Lease = Lease {
    epoch: [9; 16],
    fence: 5,
};

fn at(millis: u64) -> StoreTime {
    StoreTime::from_millis(millis)
}

fn record() -> Record {
    let token = AccessToken::new("secret-token").unwrap().with_scope("a b");
    let error = TokenError::builder(TokenErrorKind::Throttled)
        .status(429)
        .oauth_error("slow_down")
        .build();
    Record {
        token: Some(SharedToken {
            token,
            times: Some(Times {
                life: Duration::from_secs(900),
                due: at(800_000),
                end: at(900_000),
                wall_end: UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            }),
        }),
        pause: Some(SharedPause::new(&error, at(5_000), 3)),
        spacing: Spacing::default().after_rejection(at(70)).doubled(),
        is_unshared: false,
    }
}

fn seal(record: &Record) -> Vec<u8> {
    let name = names().of(&TokenRequest::default());
    record.seal(&name, &keys(), LEASE).unwrap().unwrap()
}

fn open_as(bytes: &[u8], names: &Names, request: &TokenRequest, keys: &SealingKeys) -> Opened {
    Record::open(bytes, &names.of(request), keys, |_| false)
}

fn open(bytes: &[u8]) -> Opened {
    open_as(bytes, &names(), &TokenRequest::default(), &keys())
}

fn is_open(opened: &Opened) -> bool {
    matches!(opened, Opened::Record(..))
}

#[test]
fn a_record_opens_as_it_was_sealed() {
    let Opened::Record(opened, lease) = open(&seal(&record())) else {
        panic!("it must open");
    };
    assert_eq!(lease, LEASE);
    let (token, sealed) = (opened.token.unwrap(), record().token.unwrap());
    assert!(token.token.is_same_value(&sealed.token));
    assert_eq!(token.token.scope(), Some("a b"));
    assert_eq!(token.times, sealed.times);
    assert_eq!(opened.pause, record().pause);
    assert_eq!(opened.spacing, record().spacing);

    let error = opened.pause.unwrap().error(Duration::from_secs(2));
    assert!(error.is_paused() && error.is_transient());
    assert_eq!(error.kind(), TokenErrorKind::Throttled);
    assert_eq!(error.status(), Some(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(error.oauth_error(), Some("slow_down"));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
}

#[test]
fn an_empty_record_opens() {
    assert!(is_open(&open(&seal(&Record::default()))));
}

#[test]
fn a_record_is_no_other_token_and_no_other_fleet() {
    let bytes = seal(&record());
    let other = |issuer, client| Names::new(&FleetIdentity::new(issuer, client), &[1; 32]).unwrap();
    for (names, request) in [
        (names(), TokenRequest::scope("a")),
        (names(), TokenRequest::scope("")),
        (names(), TokenRequest::subject("a")),
        (
            other("https://a.example/", "other"),
            TokenRequest::default(),
        ),
        (
            other("https://b.example/", "client"),
            TokenRequest::default(),
        ),
    ] {
        let opened = open_as(&bytes, &names, &request, &keys());
        assert!(matches!(opened, Opened::Nothing));
    }
}

#[test]
fn an_unknown_key_is_foreign_and_a_false_one_opens_nothing() {
    let bytes = seal(&record());
    let names = names();
    let open = |keys: &SealingKeys| open_as(&bytes, &names, &TokenRequest::default(), keys);
    let newer = SealingKeys::new("newer", [4; 32]).unwrap();
    assert!(matches!(open(&newer), Opened::Foreign));
    let rotated = newer.and_open("new", [2; 32]).unwrap();
    assert!(is_open(&open(&rotated)));
    let false_key = SealingKeys::new("new", [4; 32]).unwrap();
    assert!(matches!(open(&false_key), Opened::Nothing));
    // The id is sealed, too: the key of another id does not open it.
    let renamed = SealingKeys::new("old", [2; 32]).unwrap();
    let mut bytes = bytes.clone();
    bytes[2..5].copy_from_slice(b"old");
    let opened = open_as(&bytes, &names, &TokenRequest::default(), &renamed);
    assert!(matches!(opened, Opened::Nothing));
}

#[test]
fn another_version_is_foreign() {
    let mut bytes = seal(&record());
    bytes[0] = 2;
    assert!(matches!(open(&bytes), Opened::Foreign));
}

#[test]
fn an_older_record_than_one_that_was_seen_is_nothing() {
    let bytes = seal(&record());
    let name = names().of(&TokenRequest::default());
    let open_after = |seen: u64| Record::open(&bytes, &name, &keys(), |it| it.fence < seen);
    assert!(is_open(&open_after(5)));
    assert!(matches!(open_after(6), Opened::Nothing));
}

#[test]
fn a_long_token_is_not_sealed() {
    let of_length = |length| Record {
        token: Some(SharedToken {
            token: AccessToken::new("x".repeat(length)).unwrap(),
            times: None,
        }),
        ..Record::default()
    };
    let name = names().of(&TokenRequest::default());
    let seal = |length| of_length(length).seal(&name, &keys(), LEASE).unwrap();
    assert!(seal(60 * 1024).is_some());
    assert!(seal(MAX_LENGTH).is_none());
}

#[test]
fn spacing_doubles_up_to_ten_seconds_and_resets() {
    let mut spacing = Spacing::default().after_rejection(at(0));
    let mut lengths = vec![];
    for _ in 0..5 {
        lengths.push(spacing.length.as_secs());
        spacing = spacing.doubled();
        spacing = spacing.after_rejection(spacing.until);
    }
    assert_eq!(lengths, [1, 2, 4, 8, 10]);
    assert_eq!(spacing.after_refresh(at(1)), spacing, "it goes on");
    let later = spacing.until.plus(Duration::from_secs(1));
    assert_eq!(spacing.after_rejection(later).length, Spacing::MIN);
    assert_eq!(spacing.after_refresh(later), Spacing::default());
}

#[test]
fn the_whole_spacing_counts_from_the_rejection() {
    let spacing = Spacing::default().after_rejection(at(100));
    assert_eq!(spacing.until, at(1_100));
    assert_eq!(spacing.doubled().until, at(2_100));
}

proptest! {
    #[test]
    fn a_changed_record_does_not_open(place in 0..10_000usize, change in 1..=255u8) {
        let mut bytes = seal(&record());
        let place = place % bytes.len();
        bytes[place] ^= change;
        prop_assert!(!is_open(&open(&bytes)));
    }

    #[test]
    fn a_shortened_or_extended_record_does_not_open(
        cut in 1..10_000usize, more in proptest::collection::vec(any::<u8>(), 1..40),
    ) {
        let bytes = seal(&record());
        prop_assert!(!is_open(&open(&bytes[..cut % bytes.len()])));
        prop_assert!(!is_open(&open(&[&bytes[..], &more].concat())));
    }

    #[test]
    fn parts_of_two_records_do_not_open_as_one(place in 1..10_000usize) {
        let (one, mut other) = (seal(&record()), record());
        other.pause = None;
        let name = names().of(&TokenRequest::default());
        let lease = Lease { fence: 6, ..LEASE };
        let other = other.seal(&name, &keys(), lease).unwrap().unwrap();
        let place = 1 + place % (one.len().min(other.len()) - 1);
        // The parts before the fence are the same in both.
        let place = place.max(2 + 3 + 16 + 8);
        prop_assert!(!is_open(&open(&[&one[..place], &other[place..]].concat())));
        prop_assert!(!is_open(&open(&[&other[..place], &one[place..]].concat())));
    }

    #[test]
    fn foreign_bytes_do_not_open(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!is_open(&open(&bytes)));
        let mut bytes = bytes;
        bytes.insert(0, VERSION);
        prop_assert!(!is_open(&open(&bytes)));
    }

    #[test]
    fn content_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode(&bytes);
        let mut content = record().encode().to_vec();
        for (place, byte) in bytes.iter().enumerate() {
            let length = content.len();
            content[(place * 31) % length] ^= byte;
            let _ = Record::decode(&content);
        }
    }
}
