//! The server's images.

use crate::transport::Call;
use crate::{Client, ClientError, path};
use http::Method;
use sandcrab_api::image::{ImageInfo, ImageList, ImageRemoved};

impl Client {
    /// The images that sandboxes can be made of, by name.
    ///
    /// # Errors
    /// As any call.
    pub async fn images(&self) -> Result<Vec<ImageInfo>, ClientError> {
        let list: ImageList =
            self.transport().json(&Call::get("listImages", "/v1/images".to_owned())).await?;
        Ok(list.images)
    }

    /// Builds an image unless it is there, which may take minutes; so does the first sandbox that is made of it.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` where there is no such image, `CONTAINER_UNAVAILABLE` naming the step where it could not be
    /// built, `PYTHON_NOT_AVAILABLE` where this machine cannot have it.
    pub async fn build_image(&self, name: &str) -> Result<ImageInfo, ClientError> {
        let path = path::join("/v1/images", name);
        self.transport().json(&Call::new("buildImage", Method::PUT, path).repeatable().unbounded()).await
    }

    /// Removes what was built for an image.
    ///
    /// # Errors
    /// `RESOURCE_BUSY` while sandboxes are made of it, `VALIDATION_FAILED` where there is no such image.
    pub async fn remove_image(&self, name: &str) -> Result<ImageRemoved, ClientError> {
        let path = path::join("/v1/images", name);
        self.transport().json(&Call::new("removeImage", Method::DELETE, path)).await
    }
}
