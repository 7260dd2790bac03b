//! `cargo xtask wheel`: the module that os-brick imports, for an os-brick that came by pip.
//!
//! Built by the tools that Python projects use, in an environment of its own below `target/`: what
//! the host has installed decides nothing. Two builds give the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::VERSION;
use super::program::output;
use super::stage::Inputs;
use crate::workspace;

pub(crate) fn run() -> anyhow::Result<()> {
    println!("wheel: {}", build()?.display());
    Ok(())
}

/// Builds the wheel; answers where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let inputs = Inputs::of_workspace(PathBuf::new());
    let epoch = inputs.epoch()?;
    let python = environment("wheel", &["setuptools>=64", "wheel"])?;
    // setuptools leaves its own directories beside what it builds.
    let source = inputs.packages.join("wheel");
    if source.exists() {
        fs::remove_dir_all(&source)?;
    }
    let agent = "os_brick/initiator/connectors/nvmeof_agent.py";
    for file in [agent, "pyproject.toml", "README.md"] {
        let to = source.join(file);
        fs::create_dir_all(to.parent().context("it is below a directory")?)?;
        fs::copy(inputs.repository.join("packaging/openstack").join(file), &to)
            .with_context(|| format!("packaging/openstack/{file} is missing"))?;
    }
    output(
        Command::new(python)
            .args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"])
            .arg("--wheel-dir")
            .arg(&inputs.packages)
            .arg(&source)
            .env("SOURCE_DATE_EPOCH", epoch.to_string()),
    )?;
    let wheel = inputs.packages.join(format!("nvme_heal_openstack-{VERSION}-py3-none-any.whl"));
    anyhow::ensure!(wheel.is_file(), "pip left no {}", wheel.display());
    Ok(wheel)
}

/// The Python of an environment that has these packages; made on first use.
pub(crate) fn environment(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    let directory = workspace::target().join("python").join(name);
    let python = directory.join("bin/python3");
    if !python.is_file() {
        println!("making a Python environment in {}", directory.display());
        output(Command::new("python3").args(["-m", "venv"]).arg(&directory))
            .context("python3 with venv is needed (Debian: python3-venv)")?;
    }
    println!("installing {} there", packages.join(", "));
    pip_install(&python, packages)?;
    Ok(python)
}

/// Installs packages into the environment of this Python.
pub(crate) fn pip_install(python: &Path, packages: &[&str]) -> anyhow::Result<()> {
    output(
        Command::new(python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(packages),
    )?;
    Ok(())
}
