//! Images: what sandboxes are made of.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageStatus {
    /// Sandboxes can be made of it at once.
    Ready,
    /// Sandboxes can be made of it at once; what an earlier release built serves, and the new one is built beside it when
    /// a server starts, or by `buildImage`.
    Outdated,
    /// It is being built; whoever makes a sandbox of it waits.
    Building,
    /// The first sandbox that is made of it waits until it is built.
    Unbuilt,
}

/// An image as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageInfo {
    /// Its name, as `image` of a new sandbox takes it.
    pub name: String,
    /// Where it stands.
    pub status: ImageStatus,
    /// What names its content, where it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Bytes that building it added on disk, once for all sandboxes; none for what is not built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// How many sandboxes of this server are made of it.
    pub sandboxes: u64,
}

/// The images, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageList {
    /// The images.
    pub images: Vec<ImageInfo>,
}

/// The answer to removing what was built for an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRemoved {
    /// Always true: failures are errors.
    pub success: bool,
    /// The image.
    pub name: String,
    /// False if there was nothing to remove.
    pub removed: bool,
    /// When it was done.
    pub timestamp: Timestamp,
}
