//! What a file is remembered by: which runs of three bytes are in it, one bit for each, shared by those that hash alike.
//!
//! So it can say that a file lacks something, and never that it has it. ASCII letters count as lower-case ones, so that
//! one digest answers both kinds of searches.

/// Bits of the largest digest; a file with more than fits into it is not remembered.
const MOST_BITS: usize = 1 << 20;
/// Bits of the smallest.
const LEAST_BITS: usize = 1 << 9;
/// Of a hundred bits so many may be set: with more, too much is found by chance.
const MOST_SET_PERCENT: usize = 45;

/// The runs of three bytes in one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Digest(Box<[u64]>);

/// Three bytes in a row, as lower-case.
pub(super) type Trigram = u32;

/// The trigrams of a piece of text.
pub(super) fn trigrams(text: &[u8]) -> impl Iterator<Item = Trigram> + '_ {
    text.windows(3).map(|three| three.iter().fold(0, |last, byte| next(last, *byte)))
}

fn next(last: Trigram, byte: u8) -> Trigram {
    ((last << 8) | Trigram::from(byte.to_ascii_lowercase())) & 0x00ff_ffff
}

/// Where a trigram's bit is, before it is cut to the size of a digest. The lower bits depend on all of its own, so that a
/// digest may be folded.
fn place(trigram: Trigram) -> usize {
    let mixed = trigram.wrapping_mul(0x9e37_79b1);
    (mixed ^ (mixed >> 15)) as usize
}

impl Digest {
    /// Whether a file may have this trigram.
    pub(super) fn may_have(&self, trigram: Trigram) -> bool {
        let place = place(trigram) & (self.0.len() * 64 - 1);
        self.0[place / 64] & (1 << (place % 64)) != 0
    }

    /// Bytes of memory.
    pub(super) fn size(&self) -> u64 {
        self.0.len() as u64 * 8
    }
}

/// Makes digests, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Builder {
    words: Vec<u64>,
    last: Trigram,
    /// Bytes seen.
    length: usize,
}

impl Builder {
    /// Begins with a file of about this size.
    pub(super) fn begin(&mut self, size: u64) {
        let bits = usize::try_from(size.saturating_mul(2)).unwrap_or(MOST_BITS).clamp(LEAST_BITS, MOST_BITS);
        self.words.clear();
        self.words.resize(bits.next_power_of_two() / 64, 0);
        (self.last, self.length) = (0, 0);
    }

    /// Adds the next piece of the file.
    pub(super) fn add(&mut self, piece: &[u8]) {
        let mask = self.words.len() * 64 - 1;
        let mut last = self.last;
        // The first two bytes of a file end no trigram.
        let skipped = 2_usize.saturating_sub(self.length).min(piece.len());
        for byte in &piece[..skipped] {
            last = next(last, *byte);
        }
        for byte in &piece[skipped..] {
            last = next(last, *byte);
            let place = place(last) & mask;
            self.words[place / 64] |= 1 << (place % 64);
        }
        self.last = last;
        self.length += piece.len();
    }

    /// The digest, as small as it may be; none if there is too much in the file.
    pub(super) fn finish(&mut self) -> Option<Digest> {
        let set = |words: &[u64]| words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        let most = |words: usize| words * 64 * MOST_SET_PERCENT / 100;
        let mut words = self.words.as_slice();
        let mut folded: Vec<u64>;
        if set(words) > most(words.len()) {
            return None;
        }
        while words.len() * 64 > LEAST_BITS {
            let (left, right) = words.split_at(words.len() / 2);
            let half: Vec<u64> = left.iter().zip(right).map(|(left, right)| left | right).collect();
            if set(&half) > most(half.len()) {
                break;
            }
            folded = half;
            words = &folded;
        }
        Some(Digest(words.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pieces: &[&[u8]]) -> Option<Digest> {
        let mut builder = Builder::default();
        builder.begin(pieces.iter().map(|piece| piece.len() as u64).sum());
        pieces.iter().for_each(|piece| builder.add(piece));
        builder.finish()
    }

    /// Bytes without an order, the same every time.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x1234_5678_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn whatever_is_in_a_file_may_be_in_it() {
        for length in [0, 1, 2, 3, 4, 100, 5_000, 70_000] {
            let text = noise(length);
            let digest = digest(&[&text]).unwrap();
            assert!(trigrams(&text).all(|trigram| digest.may_have(trigram)), "{length}");
        }
    }

    #[test]
    fn pieces_make_the_same_as_the_whole() {
        let text = noise(1_000);
        for cut in [0, 1, 2, 3, 500, 999] {
            assert_eq!(digest(&[&text[..cut], b"", &text[cut..]]), digest(&[&text]));
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(digest(&bytes), digest(&[&text]));
    }

    #[test]
    fn what_is_not_in_a_file_is_mostly_known_to_be_absent() {
        let digest = digest(&[&noise(20_000)]).unwrap();
        let others: Vec<u8> = noise(60_000).split_off(40_000);
        let by_chance = trigrams(&others).filter(|trigram| digest.may_have(*trigram)).count();
        assert!(by_chance < 10_000, "{by_chance} of 20,000");
        assert!(by_chance > 1_000, "it would be larger than it needs to be");
    }

    #[test]
    fn letters_are_the_same_in_both_cases_and_others_are_not() {
        let digest = digest(&[b"SetTimeout"]).unwrap();
        assert!(trigrams(b"sEtTiMeOuT").all(|trigram| digest.may_have(trigram)));
        assert!(!trigrams(b"clearTimeout").all(|trigram| digest.may_have(trigram)));
    }

    #[test]
    fn a_file_with_more_than_fits_is_not_remembered() {
        assert_eq!(digest(&[&noise(4 << 20)]), None);
        let repeated = noise(10_000).repeat(400);
        assert!(digest(&[&repeated]).unwrap().size() <= 8 << 10, "what repeats takes no room");
    }
}
