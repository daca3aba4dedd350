//! `sandcrab image`

use super::list::word;
use crate::plan::ImageAction;
use crate::report::{Report, table};
use anyhow::Result;
use sandcrab_client::api::image::{ImageInfo, ImageStatus};
use sandcrab_client::{Client, ClientError};

pub(crate) async fn run(client: &Client, action: &ImageAction, report: Report) -> Result<()> {
    match action {
        ImageAction::List => {
            let images = client.images().await?;
            report.result(&images, |images| {
                table(["NAME", "STATUS", "SIZE", "SANDBOXES", "KEY"], images.iter().map(row))
            })
        }
        ImageAction::Build { name } => {
            note_a_build(client, name, report).await?;
            let image = client.build_image(name).await?;
            report.result(&image, |image| table(["NAME", "STATUS", "SIZE", "SANDBOXES", "KEY"], [row(image)]))
        }
        ImageAction::Remove { name } => {
            let removed = client.remove_image(name).await?;
            report.result(&removed, |removed| match removed.removed {
                true => format!("{} is not built any more", removed.name),
                false => format!("{}: nothing to remove", removed.name),
            })
        }
    }
}

fn row(image: &ImageInfo) -> [String; 5] {
    [
        image.name.clone(),
        word(&image.status),
        image.size.map_or_else(|| "-".to_owned(), |size| format!("{} MiB", size >> 20)),
        image.sandboxes.to_string(),
        image.key.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Says why nothing seems to happen, where an image is about to be built.
pub(crate) async fn note_a_build(client: &Client, name: &str, report: Report) -> Result<(), ClientError> {
    let images = client.images().await?;
    let waits = [ImageStatus::Unbuilt, ImageStatus::Building];
    let unbuilt = |image: &&ImageInfo| image.name == name && waits.contains(&image.status);
    if images.iter().any(|image| unbuilt(&image)) {
        report.note(format_args!("building the image {name} first; it is kept"));
    }
    Ok(())
}
