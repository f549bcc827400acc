//! What is recorded is in the text, and the text is what Prometheus reads.

use std::collections::BTreeMap;

use regex::Regex;
use rstest::rstest;

use super::*;

/// Each line that is no comment, as `name{labels}` and value.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    let line = Regex::new(
        r#"^([a-z][a-z0-9_]*(?:\{[a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*\})?) (-?[0-9.]+(?:e-?[0-9]+)?)$"#,
    )
    .unwrap();
    let lines = text.lines().filter(|text| !text.starts_with("# HELP ") && !text.starts_with("# TYPE "));
    let mut series = BTreeMap::new();
    for text in lines {
        let found = line.captures(text).unwrap_or_else(|| panic!("{text}"));
        assert!(found[1].starts_with("evalmill_"), "{text}");
        let twice = series.insert(found[1].to_owned(), found[2].parse().unwrap());
        assert_eq!(twice, None, "{text} twice");
    }
    series
}

#[rstest]
#[case(r#"evalmill_results_total{verdict="passed"}"#, 0.0, 1.0)]
#[case(r#"evalmill_results_total{verdict="infra_error"}"#, 0.0, 0.0)]
#[case(r#"evalmill_stage_seconds_count{stage="execute"}"#, 0.0, 1.0)]
#[case(r#"evalmill_stage_seconds_sum{stage="execute"}"#, 0.0, 0.25)]
#[case(r#"evalmill_stage_seconds_bucket{stage="execute",le="0.1"}"#, 0.0, 0.0)]
#[case(r#"evalmill_stage_seconds_bucket{stage="execute",le="0.25"}"#, 0.0, 1.0)]
#[case(r#"evalmill_stage_seconds_bucket{stage="execute",le="600"}"#, 0.0, 1.0)]
#[case(r#"evalmill_stage_seconds_bucket{stage="net",le="+Inf"}"#, 0.0, 1.0)]
#[case(r#"evalmill_stage_seconds_bucket{stage="queue",le="0.0005"}"#, 0.0, 1.0)]
#[case("evalmill_redeliveries_total", 0.0, 1.0)]
#[case(r#"evalmill_settlements_total{kind="ack"}"#, 0.0, 1.0)]
#[case(r#"evalmill_settlements_total{kind="requeue"}"#, 0.0, 1.0)]
#[case(r#"evalmill_settlements_total{kind="retry"}"#, 0.0, 1.0)]
#[case(r#"evalmill_settlements_total{kind="park"}"#, 0.0, 1.0)]
#[case(r#"evalmill_published_total{outcome="confirmed"}"#, 0.0, 1.0)]
#[case(r#"evalmill_published_total{outcome="nacked"}"#, 0.0, 1.0)]
#[case(r#"evalmill_published_total{outcome="lost"}"#, 0.0, 1.0)]
#[case("evalmill_unconfirmed_messages", 0.0, 7.0)]
#[case("evalmill_unsettled_deliveries", 0.0, 8.0)]
#[case("evalmill_slots", 0.0, 4.0)]
#[case("evalmill_slots_busy", 0.0, 3.0)]
#[case(r#"evalmill_connection_up{link="consume"}"#, 0.0, 1.0)]
#[case(r#"evalmill_connection_up{link="publish"}"#, 0.0, 0.0)]
#[case(r#"evalmill_connection_blocked{link="publish"}"#, 0.0, 1.0)]
#[case(r#"evalmill_reconnects_total{link="publish"}"#, 0.0, 1.0)]
#[case("evalmill_launcher_restarts_total", 0.0, 2.0)]
#[case("evalmill_oldest_in_flight_seconds", 0.0, 1.5)]
fn series_are_there_from_the_start_and_move(#[case] name: &str, #[case] first: f64, #[case] then: f64) {
    let metrics = Metrics::new();
    assert_eq!(parsed(&metrics.encode()).get(name), Some(&first));
    record(&metrics);
    assert_eq!(parsed(&metrics.encode()).get(name), Some(&then));
}

fn record(metrics: &Metrics) {
    let timings = StageTimings { execute: 0.25, net: f64::INFINITY, queue: f64::NAN, ..Default::default() };
    metrics.result(Verdict::Passed, &timings);
    metrics.messaging(0.002);
    metrics.redelivered(1);
    SettledAs::ALL.into_iter().for_each(|kind| metrics.settled(kind, 1));
    metrics.parked("undecodable");
    PublishedAs::ALL.into_iter().for_each(|outcome| metrics.published(outcome, 1));
    metrics.unconfirmed(7);
    metrics.unsettled(8);
    metrics.slots(4);
    metrics.slots_busy(3);
    metrics.connection_up(Link::Consume, true);
    metrics.connection_blocked(Link::Publish, true);
    metrics.reconnected(Link::Publish, 1);
    metrics.recycled(BTreeMap::from([("age", 3), ("memory", 1)]));
    metrics.launcher_restarts(2);
    metrics.oldest_in_flight(Some(Duration::from_millis(1500)));
}

#[test]
fn reasons_appear_with_their_first_event() {
    let metrics = Metrics::new();
    record(&metrics.clone());
    let series = parsed(&metrics.encode());
    assert_eq!(series[r#"evalmill_parked_total{reason="undecodable"}"#], 1.0);
    assert_eq!(series[r#"evalmill_recycled_total{reason="age"}"#], 3.0);
    let version = format!("evalmill_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(series[&version], 1.0);
}

#[test]
fn counts_of_others_are_taken_as_they_are_and_never_go_back() {
    let metrics = Metrics::new();
    for (given, shown) in [(2, 2.0), (2, 2.0), (5, 5.0), (1, 5.0)] {
        metrics.recycled([("age", given)]);
        metrics.launcher_restarts(given);
        let series = parsed(&metrics.encode());
        assert_eq!(series[r#"evalmill_recycled_total{reason="age"}"#], shown);
        assert_eq!(series["evalmill_launcher_restarts_total"], shown);
    }
    metrics.oldest_in_flight(Some(Duration::from_secs(9)));
    metrics.oldest_in_flight(None);
    assert_eq!(parsed(&metrics.encode())["evalmill_oldest_in_flight_seconds"], 0.0);
}

#[test]
fn every_metric_has_a_type_and_a_help() {
    let metrics = Metrics::new();
    record(&metrics);
    let text = metrics.encode();
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("# HELP evalmill_"), count("# TYPE evalmill_")), (18, 18), "{text}");
}
