//! The kernel as lines, for people.

use std::fmt::Write as _;

use super::FakeKernel;
use super::io::Io;

impl FakeKernel {
    /// What there is: what it is about, and how it is.
    pub(crate) fn state(&self) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        for md in &self.arrays {
            let name = md.alias.as_ref().map_or_else(|| md.device.to_string(), ToString::to_string);
            if !md.running {
                lines.push((format!("array {name}"), "stopped".to_owned()));
                continue;
            }
            let picture = self.picture(md.id).unwrap_or_default();
            let mut text = format!("{picture} {} {:?}", md.state(), md.sync_action());
            if md.broken {
                let _ = write!(text, " broken by {:?}", md.broken_by);
            }
            if md.failed_writes > 0 {
                let _ = write!(text, ", {} writes failed", md.failed_writes);
            }
            lines.push((format!("array {name}"), text));
            for rdev in &md.rdevs {
                let slot = rdev.slot.map_or_else(|| "-".to_owned(), |slot| slot.to_string());
                let flags = heal_types::LegFlags::of(&rdev.flags());
                let io = match self.io(rdev.handle) {
                    Io::Moves => "moves",
                    Io::Waits => "waits",
                    Io::Fails => "fails",
                };
                let bad = if rdev.bad_blocks { ", bad blocks" } else { "" };
                let text = format!("slot {slot}, {flags}, I/O {io}{bad}");
                lines.push((format!("leg {name} {} ({})", rdev.name, rdev.uuid), text));
            }
        }
        for controller in &self.controllers {
            let reach = self.reach(controller);
            let text = format!(
                "{}, {reach:?}, fast_io_fail_tmo {}",
                controller.state, controller.fast_io_fail
            );
            lines.push((format!("controller {} {}", controller.name, controller.nqn), text));
        }
        for link in &self.links {
            let carrier = if link.carrier { "up" } else { "down" };
            let black = if link.black_hole { ", a black hole" } else { "" };
            lines.push((format!("link {}", link.name), format!("{carrier}{black}")));
        }
        lines
    }
}
