//! What calls to models took, cost and came to. Labels are names of the configuration, which bounds them.

use std::fmt::Error;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::exec::Models;
use crate::exec::models::{BUCKETS_SECONDS, BUCKETS_TOKENS, Counted, OPERATIONS, OperationCounts, Spread};
use crate::resilience::{State, spike};

/// Adds the metrics of all models.
pub(super) fn encode(models: &Models, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let all: Vec<Counted> = models.counted().collect();
    if all.is_empty() {
        return Ok(());
    }
    tokens(&all, encoder)?;
    calls(&all, encoder)?;
    durations(&all, encoder)?;
    gen_ai(&all, encoder)?;
    let help = "Dollars that answers of models cost; unpriced models are left out";
    let mut metric = encoder.encode_descriptor("aob_cost_usd", help, None, MetricType::Counter)?;
    for Counted { model, counts, .. } in &all {
        let dollars = std::time::Duration::from_nanos(counts.cost_nanos.value()).as_secs_f64();
        ConstCounter::new(dollars).encode(metric.encode_family(&[("model", &**model)])?)?;
    }
    spikes(&all, encoder)?;
    let help = "Turns of agents that wait for a place of their role";
    let metric = encoder.encode_descriptor("aob_agents_waiting", help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::try_from(models.waiting()).unwrap_or(i64::MAX)).encode(metric)?;
    let help = "Circuit breakers: 0 closed, 1 half open, 2 open";
    let mut metric = encoder.encode_descriptor("aob_breaker_state", help, None, MetricType::Gauge)?;
    for Counted { model, provider, state, .. } in &all {
        let level = match state {
            State::Closed => 0_i64,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        let service = format!("{provider}/{model}");
        ConstGauge::new(level).encode(metric.encode_family(&[("service", service.as_str())])?)?;
    }
    Ok(())
}

fn tokens(all: &[Counted], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Tokens of calls to models";
    let mut metric = encoder.encode_descriptor("aob_llm_tokens", help, None, MetricType::Counter)?;
    for Counted { model, provider, counts, .. } in all {
        for (kind, cell) in [
            ("input", &counts.input),
            ("output", &counts.output),
            ("cache_read", &counts.cache_read),
            ("cache_write", &counts.cache_write),
        ] {
            let labels = [("provider", &**provider), ("model", &**model), ("type", kind)];
            ConstCounter::new(cell.value()).encode(metric.encode_family(&labels)?)?;
        }
    }
    let help = "Answers of models whose tokens are an estimate";
    let mut metric = encoder.encode_descriptor("aob_llm_unmeasured", help, None, MetricType::Counter)?;
    for Counted { model, provider, counts, .. } in all {
        let labels = [("provider", &**provider), ("model", &**model)];
        ConstCounter::new(counts.unmeasured.value()).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

fn calls(all: &[Counted], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Calls to models that ended";
    let mut metric = encoder.encode_descriptor("aob_llm_calls", help, None, MetricType::Counter)?;
    for Counted { model, provider, counts, .. } in all {
        // Those that were refused are counted among the failed too.
        let failed = counts.failed.value().saturating_sub(counts.refused.value());
        for (outcome, count) in [
            ("succeeded", counts.succeeded.value()),
            ("failed", failed),
            ("refused", counts.refused.value()),
            ("given_up", counts.given_up.value()),
        ] {
            let labels = [("provider", &**provider), ("model", &**model), ("outcome", outcome)];
            ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn spikes(all: &[Counted], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Models over a threshold of models.spike: 0 calm, 1 tried out, 2 others are asked";
    let mut metric = encoder.encode_descriptor("aob_llm_spike_state", help, None, MetricType::Gauge)?;
    for Counted { model, provider, spell, .. } in all {
        let level = match spell {
            spike::State::Calm => 0_i64,
            spike::State::Probing => 1,
            spike::State::Spiking => 2,
        };
        let labels = [("provider", &**provider), ("model", &**model)];
        ConstGauge::new(level).encode(metric.encode_family(&labels)?)?;
    }
    let help = "How often a model was over a threshold of models.spike";
    let mut metric = encoder.encode_descriptor("aob_llm_spikes", help, None, MetricType::Counter)?;
    for Counted { model, provider, spikes, .. } in all {
        for (reason, count) in spikes {
            let labels = [("provider", &**provider), ("model", &**model), ("reason", reason)];
            ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

fn durations(all: &[Counted], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let help = "Time that calls to models took, waiting for a place included";
    let name = "aob_llm_call_duration_seconds";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for Counted { model, provider, counts, .. } in all {
        let bounds = BUCKETS_SECONDS.into_iter().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(counts.durations.each_ref().map(crate::telemetry::Cell::value)).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let seconds = std::time::Duration::from_micros(counts.micros.value()).as_secs_f64();
        let labels = [("provider", &**provider), ("model", &**model)];
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
    }
    Ok(())
}

/// The same as the GenAI conventions name it (OpenTelemetry, written as Prometheus has it), by what was asked for.
fn gen_ai(all: &[Counted], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let asked = |counts: &OperationCounts| counts.micros.buckets.iter().any(|cell| cell.value() > 0);
    let rows = || {
        all.iter().flat_map(move |counted| {
            let operations = OPERATIONS.into_iter().zip(&counted.counts.operations);
            let operations = operations.filter(move |(_, counts)| asked(counts));
            operations
                .map(move |(operation, counts)| (&*counted.provider, &*counted.model, operation, counts))
        })
    };
    if rows().next().is_none() {
        return Ok(());
    }
    let help = "Tokens of one answer of a model; what was cached is among the input";
    let name = "gen_ai_client_token_usage";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (provider, model, operation, counts) in rows() {
        for (kind, spread) in [("input", &counts.input), ("output", &counts.output)] {
            let labels = [
                ("gen_ai_operation_name", operation.as_str()),
                ("gen_ai_provider_name", provider),
                ("gen_ai_request_model", model),
                ("gen_ai_token_type", kind),
            ];
            let (buckets, count) = spread_of(spread, &BUCKETS_TOKENS);
            let sum = spread.sum.value() as f64;
            metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
    }
    let help = "Time that calls to models took, waiting for a place included";
    let name = "gen_ai_client_operation_duration_seconds";
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (provider, model, operation, counts) in rows() {
        let labels = [
            ("gen_ai_operation_name", operation.as_str()),
            ("gen_ai_provider_name", provider),
            ("gen_ai_request_model", model),
        ];
        let (buckets, count) = spread_of(&counts.micros, &BUCKETS_SECONDS);
        let seconds = std::time::Duration::from_micros(counts.micros.sum.value()).as_secs_f64();
        metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)?;
    }
    Ok(())
}

fn spread_of<const N: usize>(spread: &Spread<N>, bounds: &[f64]) -> (Vec<(f64, u64)>, u64) {
    let bounds = bounds.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> =
        bounds.zip(spread.buckets.iter().map(crate::telemetry::Cell::value)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    (buckets, count)
}

#[cfg(test)]
mod tests {
    use prometheus_client::collector::Collector;
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::exec::models::{Kind, Model, Provider, Settings, base_url};

    #[derive(Debug)]
    struct Only(Models);

    impl Collector for Only {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
            encode(&self.0, &mut encoder)
        }
    }

    fn scrape(settings: &Settings, change: impl FnOnce(&Models)) -> String {
        let (models, _jobs) = Models::new(settings);
        change(&models);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Only(models)));
        let mut out = String::new();
        text::encode(&mut out, &registry).unwrap();
        out
    }

    // F344, F394, F406
    #[test]
    fn what_models_took_and_cost_is_shown_by_model() {
        let second = std::time::Duration::from_secs(1);
        let provider = Provider {
            name: "p".into(),
            kind: Kind::OpenAi,
            base_url: base_url("http://127.0.0.1:1").unwrap(),
            credential: Some("KEY".into()),
            headers: Default::default(),
            timeout: second,
            idle_timeout: second,
            max_in_flight: 1,
            stream: false,
        };
        let model = Model {
            name: "m".into(),
            provider: std::sync::Arc::new(provider),
            id: "x".into(),
            context_tokens: 9,
            max_output_tokens: 9,
            max_tokens_key: "max_tokens".into(),
            bytes_per_token: 1,
            price: None,
        };
        let settings = Settings { models: [("m".into(), model)].into(), ..Settings::default() };
        let text = scrape(&settings, |models| {
            let counts = models.counted().next().unwrap().counts;
            counts.cache_read.add(7);
            counts.cost_nanos.add(1_500_000_000);
            counts.failed.add(3);
            counts.refused.increment();
            counts.durations[1].increment();
            counts.durations[11].increment();
            let [_, embeddings] = &counts.operations;
            embeddings.micros.buckets[1].increment();
            embeddings.micros.sum.add(200_000);
            embeddings.input.buckets[3].increment();
            embeddings.input.sum.add(40);
            embeddings.output.buckets[0].increment();
        });
        for line in [
            r#"aob_llm_tokens_total{provider="p",model="m",type="cache_read"} 7"#,
            r#"aob_llm_calls_total{provider="p",model="m",outcome="failed"} 2"#,
            r#"aob_llm_calls_total{provider="p",model="m",outcome="refused"} 1"#,
            r#"aob_llm_call_duration_seconds_bucket{le="0.25",provider="p",model="m"} 1"#,
            r#"aob_llm_call_duration_seconds_bucket{le="+Inf",provider="p",model="m"} 2"#,
            r#"aob_llm_call_duration_seconds_count{provider="p",model="m"} 2"#,
            r#"aob_cost_usd_total{model="m"} 1.5"#,
            r#"gen_ai_client_token_usage_bucket{le="16.0",gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m",gen_ai_token_type="input"} 0"#,
            r#"gen_ai_client_token_usage_bucket{le="64.0",gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m",gen_ai_token_type="input"} 1"#,
            r#"gen_ai_client_token_usage_sum{gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m",gen_ai_token_type="input"} 40.0"#,
            r#"gen_ai_client_token_usage_count{gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m",gen_ai_token_type="output"} 1"#,
            r#"gen_ai_client_operation_duration_seconds_sum{gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m"} 0.2"#,
            r#"gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="embeddings",gen_ai_provider_name="p",gen_ai_request_model="m"} 1"#,
            r#"aob_breaker_state{service="p/m"} 0"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
        }
        assert!(!text.contains("\"chat\""), "nobody was asked for words: {text}");
        assert_eq!(scrape(&Settings::default(), |_| {}), "# EOF\n", "nothing without models");
    }
}
