//! The operator's command for nvme-heald.

fn main() {}
