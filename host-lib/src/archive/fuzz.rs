//! What must hold of whatever a store holds: it is an error, or what was read is written as it came.

use super::{entry::Decoder, id::ArchiveRef, index::Index, manifest::Archive};

pub(crate) fn manifest(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let name = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let Ok(reference) = format!("{}/{}", name("workspace"), name("id")).parse::<ArchiveRef>() else { return };
    let Ok(archive) = Archive::decode(&reference, bytes) else { return };
    let again = archive.encode().expect("it can be written");
    assert_eq!(Archive::decode(&reference, &again).expect("it can be read again"), archive);
    archive.index_id().expect("its index has a name");
}

pub(crate) fn index(bytes: &[u8]) {
    if let Ok(index) = Index::decode(bytes) {
        assert_eq!(index.encode(), bytes);
    }
}

pub(crate) fn entries(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let (mut decoder, mut again) = (Decoder::default(), Vec::new());
    let pieces = bytes.chunks(usize::from(*piece) + 1);
    let read = pieces.into_iter().try_for_each(|piece| {
        decoder.push(piece, |entry| {
            entry.encode(&mut again);
            Ok(())
        })
    });
    if read.is_ok() && decoder.finish().is_ok() {
        assert_eq!(again, bytes);
    }
}
