//! Facts about this machine and about what the generator itself cost, read from `/proc` and `/sys`.

use serde::Serialize;

/// The machine.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Host {
    pub(crate) kernel: Option<String>,
    pub(crate) cpus: usize,
    pub(crate) model: Option<String>,
    pub(crate) governor: Option<String>,
}

impl Host {
    /// As found.
    pub(crate) fn read() -> Self {
        let line = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            kernel: line("/proc/sys/kernel/osrelease"),
            cpus: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            model: cpu_model(&cpuinfo),
            governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        }
    }
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Microseconds of CPU time of this process, from the kernel's accounting (ticks of 10 ms).
pub(crate) fn own_cpu_us() -> Option<u64> {
    ticks(&std::fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| ticks * 10_000)
}

/// User and system ticks of a `stat` line. The command's name may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        assert_eq!(ticks("12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20"), Some(200));
        assert_eq!(ticks("12 (a"), None);
        assert_eq!(
            cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2GHz\n").as_deref(),
            Some("Some CPU @ 2GHz")
        );
        assert!(own_cpu_us().is_some() && Host::read().kernel.is_some());
    }
}
