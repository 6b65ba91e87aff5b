//! `GET /metrics`: what it counts, and that it reads as Prometheus wants it (`promtool check metrics`, and
//! <https://prometheus.io/docs/practices/naming/>).

use std::collections::{BTreeMap, BTreeSet};

use corehold_types::Code;
use http::Method;
use serde_json::json;

use crate::{
    schemas,
    served::{serve, until},
    support::TestAgent,
};

async fn scraped(agent: &TestAgent) -> String {
    let answer = agent.get("/metrics", &[]).await;
    assert_eq!(answer.assert_ok().header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    answer.text().to_owned()
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{series} lacks in\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn what_was_asked_is_counted() {
    let agent = TestAgent::new();
    agent.tool("list", "{}").await.assert_ok();
    agent.tool("list", r#"{"path":"absent"}"#).await.assert_problem(404, Code::NotFound);
    let text = scraped(&agent).await;
    for (series, expected) in [
        ("corehold_agent_calls_total{tool=\"list\",surface=\"http\",outcome=\"ok\"}", 1.0),
        ("corehold_agent_calls_total{tool=\"list\",surface=\"http\",outcome=\"failed\"}", 1.0),
        ("corehold_agent_call_duration_seconds_count{tool=\"list\"}", 2.0),
        ("corehold_agent_tunnels_open", 0.0),
        ("corehold_agent_commands_running", 0.0),
        ("corehold_agent_command_output_kept_bytes", 0.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(value(&text, "process_resident_memory_bytes") > 1e6);
    assert!(value(&text, "process_cpu_seconds_total") > 0.0);
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
}

#[tokio::test]
async fn calls_under_way_and_output_that_is_kept_are_told() {
    let served = serve(&[]).await;
    let agent = &served.agent;
    agent.tool("command", r#"{"line":"head -c 5000 /dev/zero"}"#).await.assert_ok();
    agent.tool("command", r#"{"line":"sleep 600","detach":true}"#).await.assert_ok();
    let text = scraped(agent).await;
    assert_eq!(value(&text, "corehold_agent_command_output_kept_bytes"), 5000.0);
    assert_eq!(
        (value(&text, "corehold_agent_commands_kept"), value(&text, "corehold_agent_commands_running")),
        (2.0, 1.0)
    );
    // A command goes on without its caller; a call is under way as long as somebody waits for it.
    assert_eq!(value(&text, "corehold_agent_calls_running{surface=\"http\"}"), 0.0);
    let waiting = agent.tool("ports", r#"{"waitFor":1,"timeoutMs":600000}"#);
    let looking = async {
        until(|| agent.agent.activity.snapshot().held.iter().any(|held| held.1 == "ports")).await;
        scraped(agent).await
    };
    let text = tokio::select! {
        answer = waiting => panic!("{answer:?}"),
        text = looking => text,
    };
    assert_eq!(value(&text, "corehold_agent_calls_running{surface=\"http\"}"), 1.0);
    assert_eq!(value(&text, "corehold_agent_calls_running{surface=\"mcp\"}"), 0.0);
    // The caller who went away has taken it along.
    assert_eq!(value(&scraped(agent).await, "corehold_agent_calls_running{surface=\"http\"}"), 0.0);
}

#[tokio::test]
async fn names_help_and_types_are_as_prometheus_wants_them() {
    let agent = TestAgent::new();
    for (tool, _) in schemas::tools() {
        agent.tool(&tool, "[]").await;
    }
    let text = scraped(&agent).await;
    assert!(text.ends_with('\n'));
    let (mut types, mut series) = (BTreeMap::new(), BTreeSet::new());
    let mut family = String::new();
    let mut help = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap();
            assert!(words.len() > 5 && words.ends_with('.'), "{line}");
            name.clone_into(&mut help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(help, name, "help comes first");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes twice");
            name.clone_into(&mut family);
            let lower = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(lower, "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
            assert!(!name.contains(kind), "{name} says its type");
            for wrong in
                ["_ms", "_milliseconds", "_kb", "_kilobytes", "_minutes", "_percent", "_count", "_sum", "_bucket"]
            {
                assert!(!name.ends_with(wrong), "{name}: base units, and no word that is another's");
            }
        } else {
            let (name, number) = line.rsplit_once(' ').unwrap();
            assert!(number.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(series.insert(name.to_owned()), "{name} comes twice");
            let bare = name.split('{').next().unwrap();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| bare.strip_suffix(end));
            let of = of_histogram.filter(|_| types[&family] == "histogram").unwrap_or(bare);
            assert_eq!(of, family, "a family's series stand together");
        }
    }
    for name in types.keys() {
        assert!(name.starts_with("corehold_agent_") || name.starts_with("process_"), "{name}");
    }
}

#[tokio::test]
async fn whatever_is_asked_the_number_of_series_is_bounded() {
    let agent = TestAgent::new();
    let count = async || scraped(&agent).await.lines().filter(|line| !line.starts_with('#')).count();
    let ask = async |word: &str| {
        agent.tool(word, "{}").await;
        agent.tool("list", json!({"path": word, word: 1}).to_string()).await;
        agent.get(&format!("/{word}"), &[]).await;
        agent.get(&format!("/v1/files/{word}"), &[]).await;
        agent.call(Method::DELETE, &format!("/v1/tunnel/{word}"), &[("idempotency-key", word)], "").await;
        let named = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{word}"}}}}"#);
        agent
            .call(Method::POST, "/mcp", &[("content-type", "application/json"), ("mcp-session-id", word)], named)
            .await;
    };
    ask("needle0").await;
    let before = count().await;
    for number in 1..100 {
        ask(&format!("needle{number}")).await;
    }
    assert_eq!(count().await, before);
    assert!(!scraped(&agent).await.contains("needle"), "no word of a caller's is a label");
}
