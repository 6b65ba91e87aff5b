//! Good tokens, and every bad one we could think of.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use corehold_types::TOKEN_HEADER;
use ed25519_dalek::{Signer as _, SigningKey};
use http::HeaderValue;

use super::*;

const NOW: i64 = 1_800_000_000;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn served(workspace: Option<&str>) -> Arc<Ownership> {
    Arc::new(Ownership::from_start(workspace.map(str::to_owned)))
}

fn access() -> Access {
    Access {
        verifier: Some(token::Verifier::new(key().verifying_key())),
        static_token: None,
        instance: "instance".to_owned(),
        ownership: served(Some("workspace")),
        verified: Cache::default(),
    }
}

fn claims() -> Claims {
    Claims {
        aud: "instance".to_owned(),
        workspace: "workspace".to_owned(),
        sub: "somebody".to_owned(),
        scope: [Scope::Read].into_iter().collect(),
        iat: NOW - 10,
        exp: NOW + 10,
    }
}

fn sign_as(key: &SigningKey, header: &str, payload: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("{signed}.{signature}")
}

fn sign(claims: &Claims) -> String {
    sign_as(&key(), TOKEN_HEADER, &serde_json::to_string(claims).unwrap())
}

fn refusal(token: &str) -> (Code, String) {
    let problem = access().authenticate_at(token, Standing::Served, NOW).unwrap_err();
    (problem.code, problem.detail)
}

#[test]
fn a_token_of_the_host_says_who_calls() {
    let caller = access().authenticate_at(&sign(&claims()), Standing::Served, NOW).unwrap();
    assert_eq!(caller.subject, "somebody");
    assert!(caller.scopes.allow(Scope::Read) && !caller.scopes.allow(Scope::Write));
}

#[test]
fn the_clock_may_be_a_minute_behind_when_a_token_is_new_but_not_when_it_is_old() {
    let from_the_future = |ahead| sign(&Claims { iat: NOW + ahead, ..claims() });
    assert!(access().authenticate_at(&from_the_future(60), Standing::Served, NOW).is_ok());
    assert!(refusal(&from_the_future(61)).1.contains("clocks"));
    assert_eq!(refusal(&sign(&Claims { exp: NOW, ..claims() })).1, "the token expired 0 s ago");
    assert_eq!(refusal(&sign(&Claims { exp: i64::MIN, ..claims() })).0, Code::Unauthorized);
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    assert!(refusal(&sign(&Claims { aud: "other".to_owned(), ..claims() })).1.contains("another instance"));
    let other = sign(&Claims { workspace: "other".to_owned(), ..claims() });
    assert_eq!(refusal(&other).0, Code::NotClaimed);
    let unclaimed = Access { ownership: served(None), ..access() };
    assert_eq!(unclaimed.authenticate_at(&sign(&claims()), Standing::Served, NOW).unwrap_err().code, Code::NotClaimed);
}

#[test]
fn every_other_header_is_refused() {
    let payload = serde_json::to_string(&claims()).unwrap();
    for header in [
        r#"{"alg":"none","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"typ":"JWT","alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA"}"#,
        r#"{"alg":"EdDSA","typ":"JWT","kid":"x"}"#,
        "",
    ] {
        assert!(refusal(&sign_as(&key(), header, &payload)).1.contains("header"), "{header}");
    }
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#), URL_SAFE_NO_PAD.encode(&payload));
    assert!(refusal(&unsigned).1.contains("header"));
}

#[test]
fn tampered_and_truncated_tokens_are_refused() {
    let token = sign(&claims());
    let another = SigningKey::from_bytes(&[8; 32]);
    let foreign = sign_as(&another, TOKEN_HEADER, &serde_json::to_string(&claims()).unwrap());
    assert_eq!(refusal(&foreign).1, "the token's signature is not the host's");
    for end in 0..token.len() {
        assert_eq!(refusal(&token[..end]).0, Code::Unauthorized, "cut at {end}");
    }
    for index in 0..token.len() {
        let mut tampered = token.clone().into_bytes();
        tampered[index] = if tampered[index] == b'A' { b'B' } else { b'A' };
        assert_eq!(refusal(&String::from_utf8(tampered).unwrap()).0, Code::Unauthorized, "changed at {index}");
    }
    for spelling in [format!("{token}="), format!("{token}."), format!(".{token}"), format!("{token} ")] {
        assert_eq!(refusal(&spelling).0, Code::Unauthorized, "{spelling}");
    }
}

#[test]
fn a_genuine_token_with_unreadable_claims_is_refused() {
    for payload in ["", "{}", "null", "[1]", r#"{"aud":1}"#, "\u{0}"] {
        assert!(refusal(&sign_as(&key(), TOKEN_HEADER, payload)).1.contains("claims"), "{payload}");
    }
}

#[test]
fn an_expired_token_is_refused_although_it_was_verified_before() {
    let access = access();
    let token = sign(&claims());
    assert!(access.authenticate_at(&token, Standing::Served, NOW).is_ok());
    assert_eq!(access.verified.len(), 1);
    assert!(access.authenticate_at(&token, Standing::Served, NOW + 10).is_err());
    assert_eq!(access.verified.len(), 0, "and is forgotten");
}

#[test]
fn the_cache_does_not_grow_without_bound() {
    let access = access();
    for second in 0..400 {
        let token = sign(&Claims { exp: NOW + 1 + second, ..claims() });
        access.authenticate_at(&token, Standing::Served, NOW).unwrap();
    }
    assert_eq!(access.verified.len(), 256);
}

#[test]
fn a_static_token_is_every_scope_and_no_other_token_is() {
    let digest: [u8; 32] = Sha256::digest("correct horse").into();
    let access = Access { verifier: None, static_token: Some(digest), ownership: served(None), ..access() };
    let caller = access.authenticate_at("correct horse", Standing::Served, NOW).unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| caller.scopes.allow(scope)));
    for token in ["", "correct hors", "correct horse!", &sign(&claims()), &"x".repeat(5000)] {
        assert_eq!(
            access.authenticate_at(token, Standing::Served, NOW).unwrap_err().code,
            Code::Unauthorized,
            "{token}"
        );
    }
}

#[test]
fn the_header_must_be_one_bearer() {
    let with = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        bearer(&headers).map(str::to_owned).map_err(|problem| problem.detail)
    };
    assert_eq!(with(&["Bearer abc"]).as_deref(), Ok("abc"));
    assert_eq!(with(&["bearer  abc"]).as_deref(), Ok("abc"));
    for values in [&[][..], &["Basic abc"], &["abc"], &["Bearer a", "Bearer b"]] {
        assert!(with(values).is_err(), "{values:?}");
    }
}

#[test]
fn a_missing_scope_is_named() {
    let digest: [u8; 32] = Sha256::digest("t").into();
    let access = Access { static_token: Some(digest), ..access() };
    let mut headers = HeaderMap::new();
    let token = sign(&Claims { iat: now(), exp: now() + 60, ..claims() });
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    let problem = access.authorize(&headers, Scope::Write).unwrap_err();
    assert_eq!((problem.code, &problem.context["scope"]), (Code::Forbidden, &"write".into()));
    assert_eq!(problem.detail, r#"the scope "write" is needed, the token has "read""#);
    assert!(access.authorize(&headers, Scope::Read).is_ok());
}
