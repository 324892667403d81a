//! The names of the metrics, and docs/operating/metrics.md, which lists them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use edge_core::metrics::names::ALL;
use edge_core::metrics::{Exposer, Metric, MetricKind};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating/metrics.md");

fn table(exposer: Exposer) -> String {
    let mut text = "| Metric | Type | Unit | Labels | Meaning |\n|---|---|---|---|---|\n".to_owned();
    for metric in ALL.iter().filter(|metric| metric.exposer == exposer) {
        let Metric { name, kind, unit, labels, help, .. } = metric;
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!("| `{name}` | {} | {unit} | {} | {help} |\n", kind.as_str(), labels.join(", "));
    }
    text
}

/// The page with the tables between its marks written anew.
fn with_tables(page: &str) -> String {
    let mut page = page.to_owned();
    for (name, exposer) in
        [("edge-agent", Exposer::EdgeAgent), ("central", Exposer::Central), ("both", Exposer::Both)]
    {
        let (begin, end) = (format!("<!-- metrics of {name} -->\n"), "<!-- end -->".to_owned());
        let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} has no {begin}"));
        let (_, after) = rest.split_once(&end).unwrap();
        page = format!("{before}{begin}{}{end}{after}", table(exposer));
    }
    page
}

/// `LINESIDE_WRITE_GOLDEN=1 cargo test -p edge-core --test metrics` writes the tables anew.
#[test]
fn the_page_lists_every_metric_with_its_type_unit_labels_and_meaning() {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let written = with_tables(&page);
    if std::env::var_os("LINESIDE_WRITE_GOLDEN").is_some() {
        std::fs::write(PAGE, &written).unwrap();
    }
    let page = std::fs::read_to_string(PAGE).unwrap();
    assert!(
        page == written,
        "docs/operating/metrics.md is not what names.rs says: write it anew as this test tells"
    );
}

/// The names of metrics in a query; those of a histogram's series are the histogram's.
fn metrics_of(query: &str) -> BTreeSet<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let prefixes = ["edgehub_", "edgeAgent_", "lineside_", "process_"];
    let metrics = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
    let suffixes = ["_bucket", "_sum", "_count"];
    metrics.map(|name| suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)).collect()
}

#[test]
fn the_dashboard_queries_metrics_of_the_program_that_its_panel_shows() {
    let dashboard = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating/grafana-dashboard.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(dashboard).unwrap()).unwrap();
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().unwrap();
            let program = if query.contains("$gateway") { Exposer::EdgeAgent } else { Exposer::Central };
            assert!(program == Exposer::EdgeAgent || query.contains("$central"), "{query}");
            let metrics = metrics_of(query);
            assert_eq!(metrics.len(), 1, "{query}");
            let is_known = |name: &&str| {
                ALL.iter().any(|metric| metric.name == *name && metric.exposer.includes(program))
            };
            assert!(metrics.iter().all(is_known), "{program:?} does not expose {metrics:?}: {query}");
            queries += 1;
        }
    }
    assert!(queries > 40, "{queries}");
}

#[test]
fn names_follow_the_rules_of_prometheus_and_are_given_once() {
    let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), ALL.len());
    for metric in ALL {
        let Metric { name, kind, unit, labels, help, .. } = metric;
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
        assert_eq!(*kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        if ["bytes", "seconds"].contains(unit) {
            let stem = name.strip_suffix("_total").unwrap_or(name);
            assert!(stem.ends_with(unit), "{name} is in {unit}");
        }
        assert!(help.ends_with('.') && !help.contains(['\n', '\\', '|']), "{name}: {help}");
        for label in *labels {
            assert!(label.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}: {label}");
            assert!(!["device", "client", "user", "identity", "address"].contains(label), "{name}: {label}");
        }
    }
}
