//! The session engine against real shells. Tests carry the ids of the contract's clauses.

#[cfg(test)]
mod basics;
#[cfg(test)]
mod generated;
#[cfg(test)]
mod generator;
#[cfg(test)]
mod given;
#[cfg(test)]
mod nasty;
#[cfg(test)]
mod plain;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod spawning;
#[cfg(test)]
mod starting;
#[cfg(test)]
mod stopping;
#[cfg(test)]
mod versions;
