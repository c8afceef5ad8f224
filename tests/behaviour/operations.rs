//! The dashboard, the alerts and their page name the metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use bearer_auth::{MockTokenSource, TokenCache};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use serde_json::Value;

/// Collects the names of the metrics that are described, as the exporter for Prometheus writes
/// them.
#[derive(Default)]
struct Names(Mutex<BTreeSet<String>>);

impl Names {
    fn add(&self, name: &KeyName) {
        let name = name.as_str().replace('.', "_");
        self.0.lock().unwrap().insert(name);
    }
}

impl Recorder for Names {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add(&name);
        let name = name.as_str();
        for part in ["bucket", "count", "sum"] {
            self.add(&format!("{name}_{part}").into());
        }
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

/// Returns the names of the crate's metrics.
async fn metrics_of_the_crate() -> BTreeSet<String> {
    let names = Names::default();
    let _guard = metrics::set_default_local_recorder(&names);
    let cache = TokenCache::new(MockTokenSource::new());
    cache.token().await.unwrap();
    names.0.lock().unwrap().clone()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the names in a text that begin as those of metrics do.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_';
    text.split(|it| !is_part(it))
        .filter(|word| word.starts_with("bearer_auth_"))
        .map(str::to_owned)
        .collect()
}

/// Returns the values of `outcome`, `reason` and `kind` in the selectors of queries.
fn label_values(text: &str) -> BTreeSet<String> {
    let text = text.replace('\\', "");
    let mut values = BTreeSet::new();
    for label in ["outcome", "reason", "kind"] {
        for operator in ["=~", "="] {
            for rest in text.split(&format!("{label}{operator}\"")).skip(1) {
                let value = rest.split('"').next().unwrap_or_default();
                values.extend(value.split('|').map(str::to_owned));
            }
        }
    }
    values
}

/// Returns the query of each panel's target.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = dashboard["panels"].as_array().unwrap();
    panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_dashboard_has_all_metrics_and_no_others() {
    let dashboard: Value =
        serde_json::from_str(&read("docs/operations/grafana-dashboard.json")).unwrap();
    let shown = names_in(&queries(&dashboard).join("\n"));
    let mut metrics = metrics_of_the_crate().await;
    assert!(metrics.contains("bearer_auth_fetches"), "{metrics:?}");
    // Of a histogram only the parts are scraped.
    for histogram in ["bearer_auth_fetch_duration", "bearer_auth_wait_duration"] {
        assert!(metrics.remove(histogram), "{metrics:?}");
    }
    assert_eq!(shown, metrics);
}

#[tokio::test]
async fn the_panels_have_the_units_of_their_metrics() {
    let dashboard: Value =
        serde_json::from_str(&read("docs/operations/grafana-dashboard.json")).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let is_time = query.contains("_bucket") || query.contains("_duration_sum");
            let expected = match query {
                _ if is_time => "s",
                _ if query.contains(" / ") => "percentunit",
                _ if query.contains("60 * ") => "cpm",
                _ => "none",
            };
            assert_eq!(unit, expected, "{query}");
        }
    }
}

#[tokio::test]
async fn alerts_and_their_page_name_existing_metrics_and_labels() {
    let metrics = metrics_of_the_crate().await;
    let guide = read("src/guide/operating.md");
    for file in ["alerts.yaml", "README.md", "grafana-dashboard.json"] {
        let text = read(&format!("docs/operations/{file}"));
        let names = names_in(&text);
        assert!(!names.is_empty(), "{file}");
        let unknown: Vec<_> = names.difference(&metrics).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        for value in label_values(&text) {
            assert!(guide.contains(&format!("`{value}`")), "{file}: {value}");
        }
    }
}

#[test]
fn each_alert_has_a_cause_and_a_cure() {
    let alerts = read("docs/operations/alerts.yaml");
    let alerts: BTreeSet<_> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(!alerts.is_empty());
    let page = read("docs/operations/README.md");
    let sections: BTreeSet<_> = page
        .split("\n### ")
        .skip(1)
        .map(|section| {
            let (name, text) = section.split_once('\n').unwrap();
            for part in ["**Cause**", "**Cure**"] {
                assert!(
                    text.contains(part) || text.contains("The same causes"),
                    "{part} of {name}"
                );
            }
            name
        })
        .collect();
    assert_eq!(sections, alerts);
}
