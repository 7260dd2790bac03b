//! What the lab needs on the machine it runs on, and how it gets there: Debian packages, by apt.

use super::command::{exists, is_root, program, run};

/// A program and the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("debootstrap", "debootstrap"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
    ("modprobe", "kmod"),
    ("xz", "xz-utils"),
    ("setpriv", "util-linux"),
];

/// Packages still to be installed for these programs, each once.
fn missing(there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let mut packages: Vec<&str> =
        TOOLS.iter().filter(|(program, _)| !there(program)).map(|&(_, package)| package).collect();
    packages.dedup();
    packages
}

/// Installs what is missing, after having said so.
pub(crate) fn install() -> anyhow::Result<()> {
    let packages = missing(exists);
    if packages.is_empty() {
        return Ok(());
    }
    println!("lab: this machine lacks {0}; installing: apt-get install {0}", packages.join(" "));
    if !is_root() {
        anyhow::bail!("not root: run `sudo apt-get install {}` first", packages.join(" "));
    }
    run(program("apt-get").arg("update"))?;
    run(program("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "--yes", "--no-install-recommends"])
        .args(&packages))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_brings_two_programs_is_named_once() {
        let missing = missing(|program| !matches!(program, "depmod" | "modprobe" | "mke2fs"));
        assert_eq!(missing, ["e2fsprogs", "kmod"]);
    }
}
