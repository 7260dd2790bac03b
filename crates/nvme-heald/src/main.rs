//! The daemon that heals MD arrays on NVMe-oF.

fn main() {}
