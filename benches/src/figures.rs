//! Samples, and what is said of them.

use std::{fmt, time::Duration};

/// Durations of one kind of work.
#[derive(Debug, Default, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The value below which this share (0 to 1) of the samples lies; zero without samples.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        // The nearest rank; a share outside of 0 to 1 is the first or the last.
        let rank = (share * last as f64).round().clamp(0.0, last as f64) as usize;
        sorted.get(rank).copied().unwrap_or_default()
    }

    /// The middle one.
    #[must_use]
    pub fn median(&self) -> Duration {
        self.quantile(0.5)
    }

    /// How many times as long as another, by the medians.
    #[must_use]
    pub fn ratio_to(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [median, least, most] = [0.5, 0.0, 1.0].map(|share| self.quantile(share).as_secs_f64() * 1e3);
        // What takes microseconds is told by them.
        let digits = if median < 10.0 { 3 } else { 1 };
        let count = self.0.len();
        write!(formatter, "median {median:.digits$} ms (least {least:.digits$}, most {most:.1}, {count} samples)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_ratios() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), Duration::ZERO);
        for milliseconds in [30, 10, 20] {
            samples.add(Duration::from_millis(milliseconds));
        }
        assert_eq!(samples.median(), Duration::from_millis(20));
        assert_eq!(samples.quantile(1.0), Duration::from_millis(30));
        let mut half = Samples::default();
        half.add(Duration::from_millis(10));
        assert!((samples.ratio_to(&half) - 2.0).abs() < 1e-9);
    }
}
