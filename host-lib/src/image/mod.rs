//! The core image: built from the repository's `image/Dockerfile` and an agent, cached by content, and measured; and the images that the
//! engine has beside it.
//!
//! This module says what an image is; the engine's part is in [`crate::runtime::docker`].

mod agent;
mod base;
mod build;
mod collection;
mod event;
mod lines;
mod make;
mod project;
mod report;

pub(crate) use agent::check_static as check_agent;
pub use base::{Base, BaseInfo, BaseOrigin, PULLED_BASE};
pub use build::{ImageBuild, ImageInfo, build};
pub use collection::Images;
pub(crate) use collection::may_be_pulled;
pub use event::{ImageEvent, ImageEventKind, ImageStep};
pub(crate) use lines::Lines;
pub use project::build_project;
pub use report::{ImageReport, LayerReport, Portion, report};

/// The core image's repository and, after the colon, the tag that is used unless another is named.
pub const CORE_IMAGE: &str = "workspace-core:latest";

/// Label of the core image: hash of all that it was made from. The same key means the same image.
pub const KEY_LABEL: &str = "dev.corehold.image-key";
/// Label of the core image: reference of the base that it was made from.
pub const BASE_LABEL: &str = "dev.corehold.image-base";
/// Label of the core image: how many of its lowest layers are the base's.
pub const BASE_LAYERS_LABEL: &str = "dev.corehold.image-base-layers";
