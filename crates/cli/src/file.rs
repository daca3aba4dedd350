//! `file`: what was typed, and what it means.

use crate::plan::Place;
use anyhow::{Result, bail};
use clap::{Args as ClapArgs, Subcommand};

#[derive(Debug, ClapArgs)]
pub(crate) struct FileArgs {
    #[command(subcommand)]
    command: FileCommand,
}

#[derive(Debug, Subcommand)]
enum FileCommand {
    /// Make directories
    Mkdir(MkdirArgs),
    /// Move a file or directory, into TO if that is a directory
    Mv(MoveArgs),
    /// Give a file or directory exactly the name TO
    Rename(MoveArgs),
    /// Delete files
    Rm(PlacesArgs),
    /// Say whether there is something: ends with 0 or 1
    Exists(PlaceArg),
}

#[derive(Debug, ClapArgs)]
struct MkdirArgs {
    /// Make missing parents too, and accept what is there
    #[arg(short, long)]
    parents: bool,
    #[command(flatten)]
    places: PlacesArgs,
}

#[derive(Debug, ClapArgs)]
struct PlacesArgs {
    /// Where, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH", required = true)]
    places: Vec<String>,
}

#[derive(Debug, ClapArgs)]
struct PlaceArg {
    /// Where, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH")]
    place: String,
}

#[derive(Debug, ClapArgs)]
struct MoveArgs {
    /// What, as SANDBOX:PATH
    #[arg(value_name = "SANDBOX:PATH")]
    from: String,
    /// Where to, in the same sandbox
    to: String,
}

/// What to do with files of a sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum FilePlan {
    Mkdir { places: Vec<Place>, parents: bool },
    Move { from: Place, to: String },
    Rename { from: Place, to: String },
    Remove { places: Vec<Place> },
    Exists { place: Place },
}

impl FilePlan {
    pub(crate) fn new(args: FileArgs) -> Result<Self> {
        Ok(match args.command {
            FileCommand::Mkdir(MkdirArgs { parents, places }) => {
                Self::Mkdir { places: places.read()?, parents }
            }
            FileCommand::Rm(places) => Self::Remove { places: places.read()? },
            FileCommand::Exists(PlaceArg { place }) => Self::Exists { place: read(&place)? },
            FileCommand::Mv(args) => {
                let (from, to) = args.read()?;
                Self::Move { from, to }
            }
            FileCommand::Rename(args) => {
                let (from, to) = args.read()?;
                Self::Rename { from, to }
            }
        })
    }
}

impl PlacesArgs {
    fn read(&self) -> Result<Vec<Place>> {
        self.places.iter().map(|place| read(place)).collect()
    }
}

impl MoveArgs {
    fn read(self) -> Result<(Place, String)> {
        let from = read(&self.from)?;
        let to = match Place::parse(&self.to)? {
            Some(to) if to.sandbox != from.sandbox => {
                bail!("{} is in another sandbox: copy it there with `cp`, by way of this machine", self.to)
            }
            Some(to) => to.path,
            None => self.to,
        };
        Ok((from, to))
    }
}

fn read(text: &str) -> Result<Place> {
    match Place::parse(text)? {
        Some(place) => Ok(place),
        None => bail!("{text:?} is no SANDBOX:PATH"),
    }
}
