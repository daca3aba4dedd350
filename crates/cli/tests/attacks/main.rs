//! What hostile code in a real sandbox tries (docs/ATTACKS.md), against the binary that people run, in each kind of
//! server. Needs root. `cargo xtask attacks` prints the table.

#[cfg(test)]
#[macro_use]
mod rig;

#[cfg(test)]
mod aliases;
#[cfg(test)]
mod alive;
#[cfg(test)]
mod apart;
#[cfg(test)]
mod churn;
#[cfg(test)]
mod contents;
#[cfg(test)]
mod devices;
#[cfg(test)]
mod exhaustion;
#[cfg(test)]
mod launch;
#[cfg(test)]
mod lives;
#[cfg(test)]
mod modes;
#[cfg(test)]
mod paths;
#[cfg(test)]
mod ptrace;
#[cfg(test)]
mod sockets;
