//! What can be asked for, checked: addresses, rates, times. Everything has an upper bound, and only this machine is
//! put under load unless the caller insists.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::{Asked, LATENCY_MS_MAX};
use crate::shape::Shape;

const RATE_MAX: f64 = 1_000_000.0;
const CONNECTIONS_MAX: usize = 4_096;
const THREADS_MAX: usize = 64;
const DURATION_MAX: Duration = Duration::from_secs(3_600);

/// Flags of `aob-loadgen run`, as typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Run {
    /// Where the node listens.
    #[arg(long, env = "AOB_URL", default_value = "http://127.0.0.1:7400")]
    pub(crate) url: String,
    /// What one run looks like.
    #[arg(long, value_enum, default_value = "chain5")]
    pub(crate) shape: Shape,
    /// What the node writes down of a run; left out, the document says it, which is `full`.
    #[arg(long, value_enum)]
    pub(crate) mode: Option<Mode>,
    /// Starts per second, or `max`: each connection sends the next start when the last is answered (closed loop).
    #[arg(long, default_value = "max")]
    pub(crate) rate: String,
    /// How arrivals are spread.
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) arrivals: Arrivals,
    /// How long to measure (`30s`, `5m`).
    #[arg(long, default_value = "30s")]
    pub(crate) duration: String,
    /// How long to load the node before measuring.
    #[arg(long, default_value = "5s")]
    pub(crate) warmup: String,
    /// Connections, over all threads.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Threads that send.
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Workers of a shape with tasks, each on a connection of its own.
    #[arg(long, default_value_t = 4)]
    pub(crate) workers: usize,
    /// Shape agent: where the generator's stub of a model listens, for as long as the load. The node has to know it as the model
    /// `loadgen`; a node that does not is told with which settings to start.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8081")]
    pub(crate) stub_listen: SocketAddr,
    /// Shape agent: an `aob-stub-model` that runs already, in place of the generator's.
    #[arg(long, value_name = "URL", conflicts_with = "stub_listen")]
    pub(crate) model_url: Option<String>,
    /// Shape agent: how long the stub holds every answer back; with `--model-url`, what that one was started with.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) latency_ms: u64,
    #[command(flatten)]
    pub(crate) stream: crate::stream::Asked,
    /// Seed of the Poisson arrivals.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long to wait at the end until every run is finished.
    #[arg(long, default_value = "30s")]
    pub(crate) quiesce: String,
    /// Write every second's latencies there as a log of histograms (HdrHistogram interval log).
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
    /// Write the report there instead of stdout.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Allow a node on another machine.
    #[arg(long)]
    pub(crate) allow_remote: bool,
}

/// What a node writes down of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Every transition.
    Full,
    /// What cannot be decided again.
    Fast,
}

impl Mode {
    /// As in requests.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Fast => "fast",
        }
    }
}

/// How arrivals are spread over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// Equal distances.
    Constant,
    /// Independent of each other, as from many users.
    Poisson,
}

/// Starts per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// Closed loop.
    Max,
    /// Open loop.
    PerSecond(f64),
}

/// What is asked for, checked.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) address: SocketAddr,
    /// Value of the `host` header.
    pub(crate) host: String,
    pub(crate) shape: Shape,
    pub(crate) mode: Option<Mode>,
    pub(crate) rate: Rate,
    pub(crate) arrivals: Arrivals,
    pub(crate) duration: Duration,
    pub(crate) warmup: Duration,
    pub(crate) quiesce: Duration,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) workers: usize,
    /// Of a shape with an agent.
    pub(crate) agent: Asked,
    pub(crate) seed: u64,
    pub(crate) hdr: Option<PathBuf>,
}

/// What was typed cannot be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("--{0} {1}: expected http://HOST[:PORT]")]
    Url(&'static str, String),
    #[error("--{flag} {url}: {cause}")]
    Resolve { flag: &'static str, url: String, cause: std::io::Error },
    #[error("{0} is not on this machine; load on another needs --allow-remote")]
    Remote(SocketAddr),
    #[error("--{flag} {value}: expected {expected}")]
    Value { flag: &'static str, value: String, expected: String },
}

impl Run {
    /// Checks every flag.
    pub(crate) fn resolve(&self) -> Result<Options, Error> {
        let (address, host) = self.address("url", &self.url, 7400)?;
        let bad = |flag, value: &dyn std::fmt::Display, expected: String| {
            Err(Error::Value { flag, value: value.to_string(), expected })
        };
        if !(1..=THREADS_MAX).contains(&self.threads) {
            return bad("threads", &self.threads, format!("1 to {THREADS_MAX}"));
        }
        if !(self.threads..=CONNECTIONS_MAX).contains(&self.connections) {
            return bad("connections", &self.connections, format!("{} to {CONNECTIONS_MAX}", self.threads));
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.workers) {
            return bad("workers", &self.workers, format!("1 to {CONNECTIONS_MAX}"));
        }
        let rate = match self.rate.as_str() {
            "max" => Rate::Max,
            text => match text.parse::<f64>() {
                Ok(rate) if rate > 0.0 && rate <= RATE_MAX => Rate::PerSecond(rate),
                _ => return bad("rate", &text, format!("max, or starts per second up to {RATE_MAX}")),
            },
        };
        if self.latency_ms > LATENCY_MS_MAX {
            return bad("latency-ms", &self.latency_ms, format!("0 to {LATENCY_MS_MAX}"));
        }
        let other = self.model_url.as_ref().map(|url| self.address("model-url", url, 8081)).transpose()?;
        let duration = seconds("duration", &self.duration)?;
        if duration < Duration::from_millis(10) {
            return bad("duration", &self.duration, "at least 10ms".into());
        }
        Ok(Options {
            address,
            host,
            shape: self.shape,
            mode: self.mode,
            rate,
            arrivals: self.arrivals,
            duration,
            warmup: seconds("warmup", &self.warmup)?,
            quiesce: seconds("quiesce", &self.quiesce)?,
            connections: self.connections,
            threads: self.threads,
            workers: self.workers,
            agent: Asked { listen: self.stub_listen, other, latency_ms: self.latency_ms },
            seed: self.seed,
            hdr: self.hdr.clone(),
        })
    }

    /// Where a URL leads, and the value of the `host` header there.
    fn address(&self, flag: &'static str, url: &str, port: u16) -> Result<(SocketAddr, String), Error> {
        let bad = || Error::Url(flag, url.to_owned());
        let host = url.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '?', '@', ' ', '\r', '\n']) {
            return Err(bad());
        }
        let port_given = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let with_port = if port_given { host.to_owned() } else { format!("{host}:{port}") };
        let mut addresses = with_port.to_socket_addrs().map_err(|cause| Error::Resolve {
            flag,
            url: url.to_owned(),
            cause,
        })?;
        let address = addresses.next().ok_or_else(bad)?;
        if !address.ip().is_loopback() && !self.allow_remote {
            return Err(Error::Remote(address));
        }
        Ok((address, host.to_owned()))
    }
}

/// `250ms`, `30s`, `5m`, at most an hour.
fn seconds(flag: &'static str, text: &str) -> Result<Duration, Error> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let scale = match unit {
        "ms" => Some(0.001),
        "s" => Some(1.0),
        "m" => Some(60.0),
        _ => None,
    };
    let span = scale.zip(number.parse::<f64>().ok()).map(|(scale, number)| scale * number);
    match span.and_then(|span| Duration::try_from_secs_f64(span).ok()) {
        Some(span) if span <= DURATION_MAX => Ok(span),
        _ => Err(Error::Value {
            flag,
            value: text.into(),
            expected: "like 250ms, 30s or 5m, at most 60m".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Options, Error> {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Wrapper {
            #[command(flatten)]
            run: Run,
        }
        Wrapper::parse_from(std::iter::once(&"run").chain(arguments)).run.resolve()
    }

    #[test]
    fn flags_are_resolved() {
        let options = run(&["--url", "http://127.0.0.1:81/", "--rate", "500", "--duration", "2m"]).unwrap();
        assert_eq!((options.address.port(), options.host.as_str()), (81, "127.0.0.1:81"));
        assert_eq!((options.rate, options.duration), (Rate::PerSecond(500.0), Duration::from_secs(120)));
        assert_eq!(run(&["--url", "http://localhost"]).unwrap().address.port(), 7400);
    }

    #[test]
    fn another_machine_is_refused_unless_allowed() {
        let error = run(&["--url", "http://192.0.2.1:80"]).unwrap_err();
        assert!(error.to_string().contains("--allow-remote"), "{error}");
        assert!(run(&["--url", "http://192.0.2.1:80", "--allow-remote"]).is_ok());
        let error = run(&["--model-url", "http://192.0.2.1:80"]).unwrap_err();
        assert!(error.to_string().contains("--allow-remote"), "{error}");
    }

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        for (flag, value) in [
            ("--rate", "0"),
            ("--rate", "1e7"),
            ("--rate", "fast"),
            ("--duration", "61m"),
            ("--duration", "30"),
            ("--duration", "0s"),
            ("--warmup", "-1s"),
            ("--connections", "0"),
            ("--threads", "65"),
            ("--latency-ms", "5001"),
            ("--model-url", "https://127.0.0.1"),
            ("--url", "https://127.0.0.1"),
            ("--url", "http://127.0.0.1/path"),
        ] {
            let error = run(&[&format!("{flag}={value}")]).unwrap_err();
            assert!(error.to_string().contains(flag), "{flag} {value}: {error}");
        }
    }
}
