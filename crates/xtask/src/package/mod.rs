//! The packages: one list of installed files for each, two formats.
//!
//! ```text
//!   tree.rs (the list, as data) ──► stage.rs (lays it out, strips, sets modes and times)
//!                                        │
//!                        ┌───────────────┴────────────────┐
//!                        ▼                                ▼
//!   packaging/deb/* ──► deb.rs ── dpkg-deb   packaging/rpm/*.spec ──► rpm.rs ── rpmbuild, then rpm checks it
//! ```
//!
//! Neither format's own tool for Rust is used: what goes into a package is visible in `packaging/`,
//! as a distribution's maintainer expects it, and the deb and the rpm cannot drift apart. The price
//! is that the scriptlets are written out by hand. `scriptlets.rs` therefore holds them to the one
//! rule that matters: no package operation touches an array or a connection.
//!
//! There are three: the daemon with its command, what os-brick imports, and the fence of a target.
//! The second is also a wheel, for os-bricks that came by pip.

pub(crate) mod deb;
mod program;
pub(crate) mod rpm;
mod scriptlets;
mod stage;
#[cfg(test)]
mod tests;
mod tree;
pub(crate) mod wheel;

/// The version of every package: the workspace's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
