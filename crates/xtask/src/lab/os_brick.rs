//! The real os-brick for a guest: Debian's Python and what pip makes of a release, as one archive.
//!
//! ```text
//!   apt-get download python3.11… ─► dpkg --extract ─┐
//!   pip install --target os-brick==7.1.1 + wheel ───┴─► compiled ─► os-brick.tar ─► /lab/files ─► over /
//! ```
//!
//! Compiled here, by the very Python that goes into the guest: emulated, that takes longer than
//! everything else os-brick does. The guest believes what it finds (`unchecked-hash`), and looks at
//! no source.
//!
//! The image stays as it is: a scenario that needs this unpacks it, and the disk forgets it with
//! the VM. Made once for each recipe and kept below `target/`; only then are archives and the
//! package index asked. The module under test is put in by the wheel that ships, anew each time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::command::{program, run};
use super::kernel::{Apt, Series};
use crate::package::wheel;
use crate::workspace;

/// The release that is attached with.
const OS_BRICK: &str = "os-brick==7.1.1";
/// Debian 12's Python, and what it needs beyond what the image has.
const PYTHON: [&str; 4] =
    ["python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libsqlite3-0"];
/// Where os-brick is in the guest.
const SITE: &str = "opt/os-brick";
/// Where Python's own library is there.
const LIBRARY: &str = "usr/lib/python3.11";
/// What nothing there imports.
const UNUSED: [&str; 9] = [
    "tests",
    "opt/os-brick/bin",
    "opt/os-brick/setuptools",
    "opt/os-brick/tzdata",
    "usr/lib/python3.11/distutils",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/unittest",
    "usr/share",
];

/// Makes the archive; answers where it is.
pub(super) fn archive() -> anyhow::Result<PathBuf> {
    let base = workspace::target().join("lab-os-brick");
    let tree = base.join(OS_BRICK.replace("==", "-"));
    if !tree.join("complete").is_file() {
        println!("lab: fetching Python of Debian 12 and {OS_BRICK}");
        if tree.exists() {
            std::fs::remove_dir_all(&tree)?;
        }
        std::fs::create_dir_all(&tree)?;
        fetch_python(&base, &tree)?;
        install(&tree.join(SITE), &[OS_BRICK])?;
        std::fs::write(tree.join("complete"), OS_BRICK)?;
    }
    let module = wheel::build()?;
    let module = module.to_str().context("the path of the wheel is not text")?;
    // Of the wheel only the module is of interest: os-brick is there already.
    let only = base.join("module");
    if only.exists() {
        std::fs::remove_dir_all(&only)?;
    }
    install(&only, &["--no-deps", module])?;
    let agent = "os_brick/initiator/connectors/nvmeof_agent.py";
    std::fs::copy(only.join(agent), tree.join(SITE).join(agent))
        .with_context(|| format!("the wheel holds no {agent}"))?;
    let archive = base.join("os-brick.tar");
    compile(
        &tree,
        &[LIBRARY, SITE],
        &[
            "usr/lib/python3.11/__pycache__/threading.cpython-311.pyc",
            "opt/os-brick/os_brick/initiator/connectors/__pycache__/nvmeof.cpython-311.pyc",
            "opt/os-brick/os_brick/initiator/connectors/__pycache__/nvmeof_agent.cpython-311.pyc",
        ],
    )?;
    run(program("tar")
        .args(["--create", "--owner=0", "--group=0"])
        .args(UNUSED.iter().map(|path| format!("--exclude={path}")))
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&tree)
        .args(["usr", "opt"]))?;
    Ok(archive)
}

/// Compiles what changed in these parts of a tree, by the Python in it and under the names that it
/// has in the guest.
pub(super) fn compile(tree: &Path, parts: &[&str], matters: &[&str]) -> anyhow::Result<()> {
    let python = tree.join("usr/bin/python3.11");
    let done = Command::new(&python)
        .env_clear()
        .env("PYTHONHOME", tree.join("usr"))
        .args(["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"])
        // pip has compiled as well, for whoever looks at the sources' times.
        .arg("-f")
        .arg("-s")
        .arg(tree)
        .args(["-p", "/"])
        .args(parts.iter().map(|part| tree.join(part)))
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    // Some file of some package is an example of what does not compile; but these are what matters.
    for module in matters {
        anyhow::ensure!(
            tree.join(module).is_file(),
            "{} left no {module}: {}",
            python.display(),
            String::from_utf8_lossy(&done.stderr)
        );
    }
    Ok(())
}

fn fetch_python(base: &Path, tree: &Path) -> anyhow::Result<()> {
    let debs = base.join("debs");
    let apt = Apt::for_series(Series::V6_1, base)?;
    for package in PYTHON {
        let deb = apt.download(package, &debs)?;
        run(program("dpkg").arg("--extract").arg(&deb).arg(tree))?;
    }
    // The image's /lib and /bin are links into /usr, and must stay so.
    for part in ["lib", "bin"] {
        let real = tree.join(part);
        if real.is_dir() {
            run(Command::new("cp").arg("-a").arg(real.join(".")).arg(tree.join("usr").join(part)))?;
            std::fs::remove_dir_all(real)?;
        }
    }
    Ok(())
}

/// Packages for the guest's Python, whatever this machine's is.
fn install(target: &Path, packages: &[&str]) -> anyhow::Result<()> {
    let python = wheel::environment("pip", &["pip>=23"])?;
    run(Command::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"])
        .arg(target)
        .args(["--platform", "manylinux2014_x86_64", "--python-version", "3.11"])
        .args(["--implementation", "cp", "--only-binary=:all:"])
        .args(packages))?;
    Ok(())
}
