//! What libFuzzer says of a run: <https://llvm.org/docs/LibFuzzer.html#output>.

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) executions: u64,
    /// Edges of the program that were reached: by the corpus at the start, and at the end.
    pub(crate) coverage: [u64; 2],
    /// Files with inputs that made it fail, hang or take too much memory.
    pub(crate) artifacts: Vec<String>,
    /// Whether it went on until its time was over.
    pub(crate) ended: bool,
}

impl Log {
    /// Reads what a run has printed.
    pub(crate) fn read(text: &str) -> Self {
        let mut log = Self { executions: 0, coverage: [0, 0], artifacts: Vec::new(), ended: false };
        let mut begun = false;
        for line in text.lines() {
            if let Some((_, file)) = line.split_once("Test unit written to ") {
                // Slow ones are kept too, without an end of the run.
                if !file.contains("/slow-unit-") {
                    log.artifacts.push(file.trim().to_owned());
                }
            } else if let Some(rest) = line.strip_prefix("Done ") {
                log.executions = number(rest).unwrap_or(log.executions);
                log.ended = true;
            } else if let Some(rest) = line.strip_prefix('#') {
                log.executions = number(rest).unwrap_or(log.executions);
                let Some(edges) = line.split_once(" cov: ").and_then(|(_, rest)| number(rest)) else { continue };
                // What comes before is the corpus being read.
                if line.contains("INITED") {
                    log.coverage[0] = edges;
                    begun = true;
                }
                log.coverage[1] = edges;
                if !begun {
                    log.coverage[0] = edges;
                }
            }
        }
        log
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.trim_start();
    digits[..digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_to_its_end_says_what_it_reached() {
        let text = "INFO: seed corpus: files: 38 min: 1b max: 4096b total: 6115b rss: 48Mb\n\
            #16\tpulse  cov: 100 ft: 120 corp: 9/5b exec/s: 0 rss: 49Mb\n\
            #39\tINITED cov: 187 ft: 400 corp: 30/5100b exec/s: 0 rss: 50Mb\n\
            #40\tNEW    cov: 188 ft: 402 corp: 31/5101b lim: 4096 exec/s: 0 rss: 50Mb L: 1/4096 MS: 1 EraseBytes-\n\
            #21700000\tDONE   cov: 208 ft: 812 corp: 71/9Kb lim: 4096 exec/s: 45208 rss: 401Mb\n\
            Done 21700000 runs in 480 second(s)\n";
        let expected = Log { executions: 21_700_000, coverage: [187, 208], artifacts: Vec::new(), ended: true };
        assert_eq!(Log::read(text), expected);
    }

    #[test]
    fn what_made_it_fail_is_named() {
        let text = "#39\tINITED cov: 187 ft: 400 corp: 30/5100b exec/s: 0 rss: 50Mb\n\
            artifact_prefix='x/'; Test unit written to x/slow-unit-1\n\
            #64\tREDUCE cov: 190 ft: 400 corp: 30/5100b\n\
            thread '<unnamed>' panicked at agent/src/root/fuzz.rs:1:1:\n\
            ==1== ERROR: libFuzzer: deadly signal\n\
            artifact_prefix='x/'; Test unit written to x/crash-da39a3ee\n";
        let log = Log::read(text);
        assert_eq!((log.artifacts.as_slice(), log.ended), (&["x/crash-da39a3ee".to_owned()][..], false));
        assert_eq!((log.executions, log.coverage), (64, [187, 190]));
    }

    #[test]
    fn a_program_that_says_nothing_did_not_run() {
        assert!(!Log::read("").ended);
    }
}
