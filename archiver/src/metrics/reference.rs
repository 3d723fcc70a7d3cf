//! The archiver's part of docs/METRICS.md, made from the tables that the code goes by.

use varve_store::setting_page::{code, section, table};

use super::failure::FailureKind;
use super::table::{ALERTS, METRICS};

const INTRO: &str = "\
# The archiver

With `metrics.listen`, `varve archive run` answers over HTTP. There is no authentication and no TLS: mind who can reach \
it. A run with `--once` does not listen.

";

const PATHS: &[(&str, &str)] = &[
    ("/metrics", "OpenMetrics text, for Prometheus and what reads the same."),
    (
        "/healthz",
        "200 while the process lives and its tasks go on; 503, with a line for each that was not heard of for `metrics.health.timeout`. For a liveness probe: what a restart can't cure, like an unreachable broker, is not in it.",
    ),
    (
        "/readyz",
        "200 while store and cluster can be reached and the group, if there is one, is joined; 503, with a line for each that is missing. Looked at beside the work: every 5 seconds the cluster, every 15 the store.",
    ),
    ("/status", "JSON with each partition: what `varve archive status` shows."),
];

const COUNTING: &str = "\
Counters are since the process was started. Topics are the only label whose values are not known beforehand: from \
`metrics.topics.max` topics on, further ones share `topic=\"_other\"`, sums as sums and ages as the oldest. Those of a \
group's archivers add up: each tells of its own partitions.

`store_cost_dollars` is an estimate: requests by class, times the list price of 1,000 (S3 Standard in us-east-1: put, copy, \
parts and listings $0.005, get and head $0.0004, deletes nothing; nothing for other stores). Your own prices go into \
`metrics.write.price.per.1000` and `metrics.read.price.per.1000`.

";

/// Markdown.
pub fn reference() -> String {
    let mut page = INTRO.to_owned();
    let paths: Vec<_> = PATHS.iter().map(|(path, doc)| vec![code(path), (*doc).to_owned()]).collect();
    table(&mut page, &["path", "what it says"], &paths);
    page.push_str("\n## Metrics of the archiver\n\n");
    page.push_str(COUNTING);
    let labels = |labels: &[&str]| labels.iter().map(|label| code(label)).collect::<Vec<_>>().join(", ");
    let rows: Vec<_> = METRICS
        .iter()
        .map(|m| vec![code(&m.full_name()), m.kind.name().to_owned(), labels(m.labels), m.doc.to_owned()])
        .collect();
    table(&mut page, &["metric", "type", "labels", "meaning"], &rows);
    let kinds: Vec<_> = FailureKind::ALL
        .iter()
        .map(|kind| vec![code(kind.name()), kind.meaning().to_owned(), kind.advice().to_owned()])
        .collect();
    section(&mut page, "Kinds of errors", &["kind", "what it is", "what to do"], &kinds);
    let alerts: Vec<_> = ALERTS
        .iter()
        .map(|alert| vec![code(alert.expression), alert.lasting.to_owned(), alert.means.to_owned()])
        .collect();
    section(&mut page, "What to alert on in Prometheus", &["expression", "for", "what it means"], &alerts);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_metric_has_its_row() {
        let page = reference();
        for metric in METRICS {
            assert_eq!(
                page.matches(&format!("\n| `{}` |", metric.full_name())).count(),
                1,
                "{}",
                metric.name
            );
        }
    }
}
