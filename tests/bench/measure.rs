//! Time and CPU of a piece of work, and two kinds of work in turn, so that their ratio holds while the
//! machine's speed drifts.

use std::time::Instant;

use anyhow::{Context, Result, anyhow};

/// One run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) seconds: f64,
    /// User and system time of this process, all threads.
    pub(crate) cpu_seconds: f64,
}

impl Sample {
    pub(crate) fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        work()?;
        Ok(Self { seconds: start.elapsed().as_secs_f64(), cpu_seconds: cpu_seconds() - cpu })
    }
}

/// Of this process, all threads.
fn cpu_seconds() -> f64 {
    used_seconds(libc::RUSAGE_SELF)
}

/// Of the processes that it started and waited for.
pub(crate) fn children_cpu_seconds() -> f64 {
    used_seconds(libc::RUSAGE_CHILDREN)
}

/// Of this thread.
pub(crate) fn thread_cpu_seconds() -> f64 {
    used_seconds(libc::RUSAGE_THREAD)
}

fn used_seconds(who: libc::c_int) -> f64 {
    // SAFETY: getrusage fills the struct it is given; all zero is a valid value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Runs `work` for each number below `n`, in threads of their own.
pub(crate) fn at_once<T: Send>(n: u32, work: impl Fn(u32) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..n).map(|number| scope.spawn(move || work(number))).collect();
        let ended = threads.into_iter().map(|t| t.join().map_err(|_| anyhow!("a thread panicked"))?);
        ended.collect()
    })
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, q: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Ours against the limit, run by run.
pub(crate) struct Pairs {
    pub(crate) ours: Vec<Sample>,
    pub(crate) limit: Vec<Sample>,
    pub(crate) bytes: u64,
}

impl Pairs {
    /// Each `runs` times in turn, after one of each that is not counted.
    pub(crate) fn run(
        runs: usize,
        bytes: u64,
        mut ours: impl FnMut() -> Result<Sample>,
        mut limit: impl FnMut() -> Result<Sample>,
    ) -> Result<Self> {
        let mut pairs = Self { ours: Vec::new(), limit: Vec::new(), bytes };
        for run in 0..=runs {
            let (b, a) = (limit()?, ours()?);
            if run > 0 {
                pairs.limit.push(b);
                pairs.ours.push(a);
            }
        }
        Ok(pairs)
    }

    fn ratio(&self, f: impl Fn(&Sample) -> f64) -> f64 {
        median(self.ours.iter().zip(&self.limit).map(|(a, b)| f(a) / f(b)))
    }

    /// Of throughput: ours by the limit's.
    pub(crate) fn speed_ratio(&self) -> f64 {
        1.0 / self.ratio(|s| s.seconds)
    }

    pub(crate) fn cpu_ratio(&self) -> f64 {
        self.ratio(|s| s.cpu_seconds)
    }

    /// One line: name, MiB/s and CPU-s per GiB of both, and the ratios.
    pub(crate) fn print(&self, name: &str) {
        let mib = self.bytes as f64 / f64::from(1 << 20);
        let speed = |s: &[Sample]| median(s.iter().map(|s| mib / s.seconds));
        let cpu = |s: &[Sample]| median(s.iter().map(|s| s.cpu_seconds / (mib / 1024.0)));
        println!(
            "{name:<52} {:>7.0} {:>7.0} {:>6.2}   {:>6.2} {:>6.2} {:>6.2}",
            speed(&self.ours),
            speed(&self.limit),
            self.speed_ratio(),
            cpu(&self.ours),
            cpu(&self.limit),
            self.cpu_ratio()
        );
    }

    pub(crate) fn header() {
        println!(
            "{:<52} {:>7} {:>7} {:>6}   {:>6} {:>6} {:>6}",
            "", "MiB/s", "limit", "ratio", "CPU-s/", "limit", "ratio"
        );
        println!("{:<52} {:>7} {:>7} {:>6}   {:>6} {:>6} {:>6}", "", "", "", "", "GiB", "", "");
    }
}

/// Resident memory of a running process at its highest.
pub(crate) fn peak_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}
