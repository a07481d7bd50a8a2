//! The node's counters, read from its `/metrics` (Prometheus text).

/// Sum of the series of `name` whose labels do not contradict `wanted`; `None`: there is no such series.
pub(crate) fn sum(text: &str, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let values = text.lines().filter_map(|line| series(line, name, wanted));
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

fn series(line: &str, name: &str, wanted: &[(&str, &str)]) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None if rest.starts_with(' ') => (Vec::new(), rest),
        None => return None,
    };
    let contradicts = |(key, value): &(&str, &str)| labels.iter().any(|(k, v)| k == key && v != value);
    if wanted.iter().any(contradicts) {
        return None;
    }
    value.split_whitespace().next()?.parse().ok()
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((key, value));
        rest = after.get(end + 1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP aob_runs_finished_total x\n\
        aob_runs_finished_total{workflow=\"a\",status=\"completed\"} 40\n\
        aob_runs_finished_total{workflow=\"a\",status=\"failed\"} 2\n\
        aob_runs_finished_total{workflow=\"b, \\\"}\",status=\"completed\"} 8 1700000000\n\
        aob_runs_started_total 50\naob_runs_active 0\naob_runs_active_other 7\n";

    #[test]
    fn series_are_summed_by_the_labels_they_have() {
        let finished = |wanted: &[(&str, &str)]| sum(TEXT, "aob_runs_finished_total", wanted);
        assert_eq!(finished(&[]), Some(50.0));
        assert_eq!(finished(&[("workflow", "a")]), Some(42.0));
        assert_eq!(finished(&[("workflow", "a"), ("status", "completed")]), Some(40.0));
        assert_eq!(finished(&[("workflow", "b, \"}")]), Some(8.0));
        assert_eq!(finished(&[("workflow", "c")]), None);
        assert_eq!(
            sum(TEXT, "aob_runs_started_total", &[("workflow", "a")]),
            Some(50.0),
            "no label to contradict"
        );
        assert_eq!(sum(TEXT, "aob_runs_active", &[]), Some(0.0));
        assert_eq!(sum(TEXT, "aob_runs", &[]), None);
    }
}
