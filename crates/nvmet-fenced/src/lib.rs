//! Takes a device of the kernel's NVMe target away from a host, and proves that it is gone.
//!
//! One verb, on the target host itself, for one peer: the recoverer, which may only start an OSD
//! elsewhere once its old node provably cannot write. The kernel makes that harder than it looks.
//! Taking a host off a subsystem's list stops its next connection and leaves the present one alone.
//! Taking the subsystem off its ports ends connections, some time later. And before 6.11 the kernel
//! shows nobody which connections there are. So nothing here waits for a connection to be gone:
//!
//! ```text
//!   controllers of the old host ──► subsystem (an object) ──► namespace ──► device
//!                                        │
//!   close    off every port, off the lists: nobody new comes in
//!            namespace off ── the kernel returns when the last write under way has ended
//!            namespace and subsystem removed ── a controller that lives on holds an object with nothing in it
//!   report   is there such a subsystem, and does another one lead to the same device?
//!   admit    a new subsystem of the same name: one host on its list, then the namespace, then the ports
//! ```
//!
//! A controller keeps the subsystem object it connected to, and looks its namespace up there. So
//! the old host's connections never meet the device again, not even those that nobody has noticed
//! yet: they end in the old object, the device hangs on the new one. That is all the proof there
//! is, and it does not depend on timing. A fake target keeps these rules in the tests, and the lab
//! keeps the fake honest.
//!
//! What the subsystem looked like is written down, durably, before anything of it is taken away,
//! with the token of the move ([`record`]). An older token is refused for ever. What is written
//! down is kept so: after a reboot of the target, and when somebody restores an old configuration
//! over it.
//!
//! | module | what |
//! |---|---|
//! | [`tree`] | the kernel's configuration tree: a trait, the real one, and a fake that connects and writes |
//! | [`subsystem`] | what a subsystem looks like; taking it down, putting it up |
//! | [`record`] | what was decided of each subsystem |
//! | [`fence`] | the verbs |
//! | [`server`] | the one way in: TLS with certificates on both sides |
//! | [`config`] | the file |
//!
//! The price: a host that is admitted again connects anew, and a target with a thousand devices
//! keeps a thousand small files.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod fence;
pub mod record;
pub mod server;
pub mod subsystem;
pub mod tree;
