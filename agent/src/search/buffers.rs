//! Memory for the lines of a file that is searched: a thread has some of its own, and borrows what longer lines need.
//!
//! The searcher knows no way to ask for more when it needs it. So it gets a limit, and where it meets that, the file is searched once
//! more with the next one.

use corehold_types::Problem;
use grep_searcher::{Searcher, SearcherBuilder};

use super::run::Query;
use crate::calls::Loan;

/// Bytes that a thread's buffer may have without asking.
pub(super) const OWN: usize = 576 << 10;

/// Bytes of the larger ones. The searcher's buffer begins with 64 KiB and grows threefold (grep-searcher 0.1, `ensure_capacity`), so with
/// these a file is cut into the same pieces in each pass, whatever the last one needs.
const BORROWED: [usize; 4] = [OWN * 3, OWN * 9, OWN * 27, OWN * 81];

/// Lends so many bytes until the loan is dropped; waits for them where that must be. A problem when there are none in time, or nobody
/// waits for the search any more.
pub type Lend<'a> = dyn Fn(usize) -> Result<Loan, Problem> + Sync + 'a;

/// The sizes to try, in their order, up to the limit; those are left out that are known to be too small.
pub(super) fn sizes(most: u64, needed: u64) -> impl Iterator<Item = usize> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let smaller = std::iter::once(OWN).chain(BORROWED).filter(move |bytes| *bytes < most && *bytes as u64 > needed);
    smaller.chain([most])
}

/// A searcher whose buffer may have so many bytes.
pub(super) fn searcher(query: &Query, bytes: usize) -> Searcher {
    let mut builder: SearcherBuilder = query.searcher.clone();
    let most = usize::try_from(query.buffer_bytes).unwrap_or(usize::MAX);
    builder.heap_limit(Some(bytes.min(most))).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(most: u64, needed: u64) -> Vec<usize> {
        sizes(most, needed).collect()
    }

    #[test]
    fn what_is_known_to_be_too_small_is_not_tried() {
        let [a, b, c, d] = BORROWED;
        assert_eq!(tried(64 << 20, 0), [OWN, a, b, c, d, 64 << 20]);
        assert_eq!(tried(64 << 20, 3 << 20), [b, c, d, 64 << 20]);
        assert_eq!(tried(64 << 20, 1 << 30), [64 << 20], "the answer says that it is too large");
        assert_eq!(tried(1 << 20, 0), [OWN, 1 << 20]);
        assert_eq!(tried(100, 0), [100]);
    }
}
