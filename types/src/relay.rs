//! How `corehold-agent relay <port>` carries a connection to a port inside over its standard input and output, for whoever can start
//! a process in the container and has no other way in.
//!
//! On its output it says [`GREETING`] once the connection is there. From then on each direction is frames: a length of two bytes,
//! big-endian, and as many bytes of the connection; a length of 0 is the end of that direction, after which nothing follows. So an
//! end in good order is told from a way that broke off, and a caller who has ended one direction from one who has gone: the end of
//! its input ends the relay at once, and the connection with a reset. What goes wrong is one line on its error output.

/// What comes first.
pub const GREETING: &[u8] = b"corehold-relay 1\n";

/// Bytes of a frame's length.
pub const HEADER_BYTES: usize = 2;

/// Bytes that a frame has at most: with its length, what engines pass on in one piece.
pub const FRAME_BYTES: usize = (32 << 10) - HEADER_BYTES;

/// The end of a direction.
pub const END: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// The length of a frame as it is sent; none for one that is too long, or empty, which would be the end.
#[must_use]
pub fn header(length: usize) -> Option<[u8; HEADER_BYTES]> {
    let length = u16::try_from(length).ok().filter(|length| (1..=FRAME_BYTES).contains(&usize::from(*length)))?;
    Some(length.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_neither_empty_nor_longer_than_it_may_be() {
        assert_eq!(header(1), Some([0, 1]));
        assert_eq!(header(FRAME_BYTES), Some([0x7f, 0xfe]));
        assert_eq!((header(0), header(FRAME_BYTES + 1), header(1 << 16)), (None, None, None));
    }
}
