//! The form of an answer, chosen by the caller's `Accept`.

use http::{HeaderMap, header};

/// How a tool's answer looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON object with everything.
    Json,
    /// Events as they happen.
    Stream(Encoding),
}

/// How events are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Server-sent events (WHATWG HTML), `text/event-stream`.
    ServerSentEvents,
    /// One JSON object a line, `application/x-ndjson`.
    Ndjson,
}

impl Form {
    /// What the caller would rather have: the form with the highest weight, of equals the first named. Without one that
    /// is known, JSON, as RFC 9110 section 12.5.1 allows.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut best = (0.0, Self::Json);
        let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in ranges.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "text/event-stream" | "text/*" => Self::Stream(Encoding::ServerSentEvents),
                "application/x-ndjson" => Self::Stream(Encoding::Ndjson),
                "application/json" | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0_f32));
            if weight > best.0 {
                best = (weight, form);
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_callers_preference_decides() {
        const SSE: Form = Form::Stream(Encoding::ServerSentEvents);
        const NDJSON: Form = Form::Stream(Encoding::Ndjson);
        for (accept, form) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("text/html", Form::Json),
            ("text/event-stream", SSE),
            ("Text/Event-Stream; charset=utf-8", SSE),
            ("application/x-ndjson", NDJSON),
            ("application/json, text/event-stream", Form::Json),
            ("text/event-stream, application/json", SSE),
            ("application/json;q=0.5, application/x-ndjson;q=0.9", NDJSON),
            ("text/event-stream;q=0, */*;q=0.1", Form::Json),
            ("text/event-stream;q=x", Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(Form::of(&headers), form, "{accept}");
        }
        assert_eq!(Form::of(&HeaderMap::new()), Form::Json);
    }
}
