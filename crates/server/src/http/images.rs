//! Routes of images.

use super::sandboxes::during;
use crate::app::App;
use axum::extract::State;
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_agent::http::extract::Path;
use sandcrab_api::image::{ImageInfo, ImageList, ImageRemoved};
use sandcrab_api::time::Timestamp;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(list)).routes(routes!(build, remove))
}

/// Lists the images that sandboxes can be made of.
#[utoipa::path(get, path = "/v1/images", tag = "images", operation_id = "listImages",
    responses((status = 200, description = "The images, by name", body = ImageList)))]
async fn list(State(app): State<Arc<App>>) -> Answer<axum::Json<ImageList>> {
    let images = app.images.list().await.map_err(|error| error.during("listImages"))?;
    Ok(axum::Json(ImageList { images }))
}

/// Builds an image, unless it is there. Answers when it is; that may take minutes.
#[utoipa::path(put, path = "/v1/images/{name}", tag = "images", operation_id = "buildImage",
    params(("name" = String, Path, description = "The image")),
    responses((status = 200, description = "It is ready", body = ImageInfo)))]
async fn build(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, Refusal>,
) -> Answer<axum::Json<ImageInfo>> {
    const OPERATION: &str = "buildImage";
    let Path(name) = name.map_err(during(OPERATION))?;
    Ok(axum::Json(app.images.build(&name).await.map_err(|error| error.during(OPERATION))?))
}

/// Removes what was built for an image; its next use builds it again. Refused while sandboxes are made of it. What was
/// downloaded for it stays.
#[utoipa::path(delete, path = "/v1/images/{name}", tag = "images", operation_id = "removeImage",
    params(("name" = String, Path, description = "The image")),
    responses((status = 200, description = "It is not built now", body = ImageRemoved)))]
async fn remove(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, Refusal>,
) -> Answer<axum::Json<ImageRemoved>> {
    const OPERATION: &str = "removeImage";
    let Path(name) = name.map_err(during(OPERATION))?;
    let removed = app.images.remove(&name).await.map_err(|error| error.during(OPERATION))?;
    Ok(axum::Json(ImageRemoved { success: true, name, removed, timestamp: Timestamp::now() }))
}
