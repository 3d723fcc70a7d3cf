//! A view as OpenMetrics text.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit as EncodedUnit};

use super::table::{Kind, METRICS, Metric, PREFIX, Sample, Unit, Value};
use super::view::View;

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn encode(view: View) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Shown(view)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Shown(View);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        METRICS.iter().try_for_each(|metric| encode_metric(metric, &(metric.read)(&self.0), &mut encoder))
    }
}

fn encode_metric(
    metric: &Metric,
    samples: &[Sample],
    encoder: &mut DescriptorEncoder,
) -> Result<(), std::fmt::Error> {
    if samples.is_empty() {
        return Ok(());
    }
    let unit = match metric.unit {
        Unit::None => None,
        Unit::Bytes => Some(EncodedUnit::Bytes),
        Unit::Seconds => Some(EncodedUnit::Seconds),
    };
    let kind = match metric.kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
        Kind::Info => MetricType::Info,
    };
    let mut lines = encoder.encode_descriptor(metric.name, metric.doc, unit.as_ref(), kind)?;
    for Sample(values, value) in samples {
        let labels: Vec<(&str, &str)> =
            metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
        if metric.kind == Kind::Info {
            lines.encode_info(&labels)?;
            continue;
        }
        let mut line = lines.encode_family(&labels)?;
        match value {
            Value::Number(number) if metric.kind == Kind::Counter => {
                line.encode_counter::<NoLabelSet, f64, f64>(number, None)?;
            }
            Value::Number(number) => line.encode_gauge(number)?,
            Value::Histogram { sum, count, buckets } => {
                line.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut view = View::default();
        let topic = super::super::view::TopicView {
            partitions: 2,
            lag_records: 7,
            lag_bytes: Some(700),
            ..Default::default()
        };
        view.topics.insert("odd.\"topic".to_owned(), topic);
        view.store.push(varve_store::OperationCount {
            operation: varve_store::Operation::Put,
            calls: 3,
            errors: 0,
            sent_bytes: 5,
            received_bytes: 0,
            duration: std::time::Duration::from_millis(30),
            latencies: std::array::from_fn(|n| u64::from(n == 2) * 3),
        });
        let text = encode(view).unwrap();
        for line in [
            "# TYPE varve_archiver_lag_bytes gauge",
            "# UNIT varve_archiver_lag_bytes bytes",
            "varve_archiver_lag_records{topic=\"odd.\\\"topic\"} 7.0",
            "varve_archiver_lag_bytes{topic=\"odd.\\\"topic\"} 700.0",
            "varve_archiver_store_requests_total{operation=\"put\"} 3.0",
            "varve_archiver_store_request_duration_seconds_bucket{le=\"+Inf\",operation=\"put\"} 3",
            "# TYPE varve_archiver_build info",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
