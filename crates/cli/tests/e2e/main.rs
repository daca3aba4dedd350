//! The command line as people run it: real processes, a real server, real sandboxes of the native driver. Needs root.

#[cfg(test)]
mod checkout;
#[cfg(test)]
mod code;
#[cfg(test)]
mod copying;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod forgery;
#[cfg(test)]
mod full_disk;
#[cfg(test)]
mod image;
#[cfg(test)]
mod life;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod residue;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod run;
#[cfg(test)]
mod setup;
#[cfg(test)]
mod shell;
