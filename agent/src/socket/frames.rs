//! Where a client's bytes are in its frames (RFC 6455, section 5.2). The library tells of a message only when all of it is there;
//! what is wrong with a frame is for the library to say.

/// A frame's head at its longest: two bytes, eight of length, four of mask.
const HEAD: usize = 14;

/// The bytes of one client, as they come.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; HEAD],
    /// Bytes of a head that isn't complete.
    have: usize,
    /// The frame whose head is complete.
    frame: Option<Frame>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Part of a message; a control frame is none, and may stand between the parts.
    is_data: bool,
    is_last: bool,
    left: u64,
}

/// What the bytes say of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A part of it begins, of so many bytes.
    Begins(u64),
    /// So many bytes of it came.
    Came(u64),
    /// All of it is there.
    Ends,
}

impl Frames {
    /// Follows bytes.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Seen)) {
        while !bytes.is_empty() {
            match &mut self.frame {
                None => {
                    self.head[self.have] = bytes[0];
                    self.have += 1;
                    bytes = &bytes[1..];
                    self.frame = self.complete_head();
                    if let Some(frame) = self.frame {
                        self.have = 0;
                        if frame.is_data {
                            tell(Seen::Begins(frame.left));
                        }
                    }
                }
                Some(frame) => {
                    let now = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
                    bytes = &bytes[now..];
                    frame.left -= now as u64;
                    if frame.is_data {
                        tell(Seen::Came(now as u64));
                    }
                }
            }
            if let Some(Frame { is_data, is_last, left: 0 }) = self.frame {
                self.frame = None;
                if is_data && is_last {
                    tell(Seen::Ends);
                }
            }
        }
    }

    /// Whether no frame has begun that isn't complete.
    pub(super) fn is_between(&self) -> bool {
        self.have == 0 && self.frame.is_none()
    }

    fn complete_head(&self) -> Option<Frame> {
        let [first, second, ..] = self.head;
        let (is_masked, short) = (second & 0x80 != 0, second & 0x7f);
        let length_bytes = match short {
            127 => 8,
            126 => 2,
            _ => 0,
        };
        if self.have < 2 || self.have < 2 + length_bytes + if is_masked { 4 } else { 0 } {
            return None;
        }
        let long = self.head[2..2 + length_bytes].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        let left = if length_bytes == 0 { u64::from(short) } else { long };
        Some(Frame { is_data: first & 0x08 == 0, is_last: first & 0x80 != 0, left })
    }
}

/// A client's bytes, for fuzzing: however they are cut, they say the same, and no more comes than was announced.
#[cfg(any(feature = "fuzzing", test))]
pub(crate) fn fuzz(bytes: &[u8]) {
    let follow = |step: usize| {
        let (mut frames, mut announced, mut came, mut ends) = (Frames::default(), 0_u128, 0_u128, 0);
        for piece in bytes.chunks(step) {
            frames.follow(piece, |seen| match seen {
                Seen::Begins(length) => announced += u128::from(length),
                Seen::Came(length) => came += u128::from(length),
                Seen::Ends => ends += 1,
            });
        }
        assert!(came <= announced && came <= bytes.len() as u128);
        (announced, came, ends, frames.is_between())
    };
    assert_eq!(follow(bytes.len().max(1)), follow(1));
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::{
        Frame as Library,
        coding::{Data, OpCode},
    };

    use super::*;

    fn bytes_of(mut frame: Library, is_masked: bool) -> Vec<u8> {
        frame.header_mut().mask = is_masked.then_some([1, 2, 3, 4]);
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn frames_of_every_length_are_followed_however_they_are_cut() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            for is_masked in [false, true] {
                let part = |length, kind, is_last| Library::message(vec![b'x'; length], OpCode::Data(kind), is_last);
                for frame in
                    [part(length, Data::Text, false), Library::ping(b"yes".to_vec()), part(2, Data::Continue, true)]
                {
                    bytes.extend(bytes_of(frame, is_masked));
                }
                expected.extend([(length as u64, 2)]);
            }
        }
        for step in [1, 2, 7, 1_000, usize::MAX] {
            let mut frames = Frames::default();
            let (mut announced, mut came, mut messages) = (Vec::new(), 0, Vec::new());
            for piece in bytes.chunks(step.min(bytes.len())) {
                frames.follow(piece, |seen| match seen {
                    Seen::Begins(length) => announced.push(length),
                    Seen::Came(length) => came += length,
                    Seen::Ends => {
                        assert_eq!(announced.iter().sum::<u64>(), std::mem::take(&mut came));
                        messages.push((announced[0], announced[1]));
                        announced.clear();
                    }
                });
            }
            assert!(messages == expected && frames.is_between(), "in steps of {step}: {messages:?}");
        }
        let mut frames = Frames::default();
        frames.follow(&[0x81], |_| unreachable!());
        assert!(!frames.is_between(), "a head has begun");
    }
}
