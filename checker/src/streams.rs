//! What streams delivered: I-13, and that it is what is there in the end (I-3, I-14).

use crate::history::History;
use crate::report::Findings;

pub(crate) fn check(history: &History, findings: &mut Findings) {
    for stream in history.streams.values() {
        let run = history.run(&stream.run);
        let (mut before, mut next) = (stream.line, stream.after + 1);
        for (line, seq, event) in &stream.events {
            history.step();
            if *seq != next {
                let name = if *seq > next { "stream_gap" } else { "stream_repeated" };
                let what = format!("event {seq} of {} came where {next} should", stream.run);
                findings.add(name, vec![before, *line], what);
            }
            (before, next) = (*line, seq + 1);
            if history.may_be_lost(*line) {
                continue;
            }
            match run.map(|run| run.row(*seq)) {
                None | Some(None) if history.last().is_some() => {
                    let what = format!("event {seq} of {} was delivered and is not there", stream.run);
                    findings.add("dirty_read", vec![*line], what);
                }
                Some(Some(row)) if row.event != *event => {
                    let what = format!("event {seq} of {} was delivered with other words", stream.run);
                    findings.add("rewritten_event", vec![*line, row.line], what);
                }
                _ => {}
            }
        }
    }
}
