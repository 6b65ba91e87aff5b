//! Packing folders.
mod exclude;
pub(crate) use self::exclude::check_pattern;
use std::path::PathBuf;
pub(crate) struct Packer {
    folder: PathBuf,
}
impl Packer {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}
