//! Upgrades of HTTP/1.1 (RFC 9110, 7.8): whether a request asks for one, and the answer that grants it.

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;

/// The words of a header that is a list.
pub(crate) fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Whether the headers ask for the upgrade to a protocol.
pub(crate) fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    let names = |name, wanted: &str| words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted));
    names(header::CONNECTION, "upgrade") && names(header::UPGRADE, protocol)
}

/// The connection, as soon as the answer is sent; nothing if it can't be upgraded.
pub(crate) fn take<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    request.extensions_mut().remove()
}

/// The answer that grants it.
pub(crate) fn granted(protocol: &'static str) -> Response<Body> {
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, protocol)];
    (StatusCode::SWITCHING_PROTOCOLS, headers.map(|(name, value)| (name, HeaderValue::from_static(value))))
        .into_response()
}
