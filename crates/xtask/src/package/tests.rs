//! The packages, made from dummy programs and a dummy configuration in a scratch directory.

use super::scriptlets::forbidden_words;
use super::stage::{self, Inputs};
use super::tree::{Entry, Format, Owner, Package};
use super::{deb, program, rpm};
use crate::workspace;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of one test's own, gone when the test is done.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let name = format!("test-{}-{test}", std::process::id());
        Self(workspace::target().join("packages").join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// This repository's packaging, with `/bin/true` as the programs and an empty configuration.
fn dummy_inputs(scratch: &Scratch) -> Inputs {
    let Scratch(scratch) = scratch;
    let repository = scratch.join("repository");
    for directory in ["packaging", "udev-rules"] {
        copy_tree(&workspace::root().join(directory), &repository.join(directory));
    }
    fs::copy(workspace::root().join("LICENSE"), repository.join("LICENSE")).unwrap();
    fs::create_dir_all(repository.join("packaging/config")).unwrap();
    fs::write(repository.join("packaging/config/nvme-heald.ron"), "()\n").unwrap();
    let programs = scratch.join("programs");
    fs::create_dir_all(&programs).unwrap();
    for name in stage::PROGRAMS {
        fs::copy("/bin/true", programs.join(name)).unwrap();
    }
    Inputs { repository, programs, packages: scratch.join("packages") }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn script(name: &str) -> String {
    fs::read_to_string(workspace::root().join("packaging/deb").join(name)).unwrap()
}

/// Paths a script deletes recursively, without the prefix of a scratch root.
fn deleted_paths(script: &str) -> Vec<String> {
    script
        .lines()
        .map(str::trim)
        .filter_map(|line| line.strip_prefix("rm "))
        .flat_map(str::split_whitespace)
        .filter(|word| !word.starts_with('-'))
        .map(|word| word.replace("${DPKG_ROOT:-}", "").replace('"', ""))
        .collect()
}

fn dpkg_deb(option: &str, package: &Path) -> String {
    program::output(Command::new("dpkg-deb").arg(option).arg(package)).unwrap()
}

#[test]
fn every_installed_path_is_absolute_listed_once_and_outside_local_policy() {
    for format in [Format::Deb, Format::Rpm] {
        let mut seen = BTreeSet::new();
        let all = Package::ALL.into_iter().flat_map(|package| package.entries(format));
        for entry in all {
            let Entry { destination, owner, mode, .. } = entry;
            assert!(destination.starts_with('/') && !destination.contains(".."), "{destination}");
            assert!(seen.insert(*destination), "{destination} is listed twice");
            assert!(!destination.starts_with("/usr/local"), "{destination}");
            assert_eq!(mode & 0o022, 0, "{destination} is writable by others");
            let file_in_etc = destination.starts_with("/etc/") && !entry.is_directory();
            assert_eq!(file_in_etc, *owner == Owner::Operator, "{destination}");
        }
    }
}

#[test]
fn the_deb_installs_the_list_and_nothing_else() {
    let scratch = Scratch::new("deb-list");
    let package = deb::build_from(&dummy_inputs(&scratch), Package::Heal).unwrap();
    let contents = dpkg_deb("--contents", &package);
    let shown: BTreeSet<String> = contents
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| {
            assert_eq!(fields[1], "root/root", "{fields:?}");
            !fields[0].starts_with('d')
        })
        .map(|fields| fields[5].trim_start_matches('.').to_owned())
        .collect();
    let expected: BTreeSet<String> = Package::Heal
        .entries(Format::Deb)
        .filter(|entry| !entry.is_directory())
        .map(|entry| entry.destination.to_owned())
        .collect();
    assert_eq!(shown, expected);
    assert!(
        contents.contains("drwx------ root/root"),
        "the ledger's directory is private: {contents}"
    );
    assert!(contents.contains("./var/lib/nvme-heal/"), "{contents}");
}

#[test]
fn the_deb_says_what_it_needs_and_keeps_what_the_operator_changed() {
    let scratch = Scratch::new("deb-control");
    let package = deb::build_from(&dummy_inputs(&scratch), Package::Heal).unwrap();
    let field = |name: &str| {
        program::output(Command::new("dpkg-deb").arg("--field").arg(&package).arg(name)).unwrap()
    };
    let depends = field("Depends");
    for needed in ["libc6 (>=", "mdadm (>=", "nvme-cli (>="] {
        assert!(depends.contains(needed), "{depends}");
    }
    let conffiles =
        program::output(Command::new("dpkg-deb").arg("--info").arg(&package).arg("conffiles"))
            .unwrap();
    assert_eq!(
        conffiles.lines().collect::<Vec<_>>(),
        ["/etc/nvme-heal/nvme-heald.ron", "/etc/needrestart/conf.d/50-nvme-heald.conf"]
    );
}

#[test]
fn two_builds_of_the_deb_are_the_same_bytes() {
    let scratch = Scratch::new("deb-twice");
    let inputs = dummy_inputs(&scratch);
    let first = fs::read(deb::build_from(&inputs, Package::Heal).unwrap()).unwrap();
    let second = fs::read(deb::build_from(&inputs, Package::Heal).unwrap()).unwrap();
    assert!(first == second);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let scratch = Scratch::new("deb-missing");
    let inputs = dummy_inputs(&scratch);
    fs::remove_file(inputs.repository.join("packaging/config/nvme-heald.ron")).unwrap();
    let refused = deb::build_from(&inputs, Package::Heal).unwrap_err();
    assert!(
        format!("{refused:#}").contains("packaging/config/nvme-heald.ron is missing"),
        "{refused:#}"
    );
}

#[test]
fn a_script_that_touches_an_array_does_not_get_into_a_deb() {
    let scratch = Scratch::new("deb-forbidden");
    let inputs = dummy_inputs(&scratch);
    let prerm = inputs.repository.join("packaging/deb/prerm");
    fs::write(&prerm, "#!/bin/sh\n/sbin/mdadm --stop /dev/md0\n").unwrap();
    let refused = deb::build_from(&inputs, Package::Heal).unwrap_err();
    assert!(format!("{refused:#}").contains("prerm must not use mdadm, --stop"), "{refused:#}");
}

#[test]
fn the_maintainer_scripts_are_valid_shell_and_touch_no_array_and_no_connection() {
    for name in ["postinst", "prerm", "postrm"] {
        assert_eq!(forbidden_words(&script(name)), [""; 0], "{name}");
        let path = workspace::root().join("packaging/deb").join(name);
        program::output(Command::new("sh").arg("-n").arg(path)).unwrap();
    }
}

#[test]
fn only_a_purge_deletes_and_only_our_two_directories() {
    assert_eq!(deleted_paths(&script("postrm")), ["/var/lib/nvme-heal", "/run/nvme-heald"]);
    assert_eq!(deleted_paths(&script("postinst")), [""; 0]);
    assert_eq!(deleted_paths(&script("prerm")), [""; 0]);
}

/// Runs a maintainer script against a scratch root with files of ours and of others in it.
fn left_after(test: &str, script: &str, argument: &str) -> Vec<String> {
    let scratch = Scratch::new(test);
    let root = &scratch.0;
    let files = [
        "etc/nvme/hostnqn",
        "run/mdadm/map",
        "run/nvme-heald/legs/259:1",
        "var/lib/nvme-heal/a.ron",
        "var/lib/other/b",
    ];
    for file in files {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), "").unwrap();
    }
    program::output(
        Command::new("sh")
            .arg(workspace::root().join("packaging/deb").join(script))
            .arg(argument)
            .env("DPKG_ROOT", root),
    )
    .unwrap();
    files.into_iter().filter(|file| root.join(file).exists()).map(str::to_owned).collect()
}

#[test]
fn a_purge_leaves_everything_of_others_in_place() {
    assert_eq!(
        left_after("purge", "postrm", "purge"),
        ["etc/nvme/hostnqn", "run/mdadm/map", "var/lib/other/b"]
    );
}

#[test]
fn removal_and_upgrade_delete_nothing() {
    for (script, argument) in
        [("prerm", "remove"), ("prerm", "upgrade"), ("postrm", "remove"), ("postrm", "upgrade")]
    {
        assert_eq!(
            left_after(&format!("{script}-{argument}"), script, argument).len(),
            5,
            "{script} {argument}"
        );
    }
}

/// dpkg on an empty root, the scripts run outside of it with `DPKG_ROOT` set.
fn dpkg(root: &Path, arguments: &[&str]) -> String {
    let shown = program::output(
        Command::new("dpkg")
            .arg(format!("--root={}", root.display()))
            .args(["--force-depends", "--force-script-chrootless", "--log=/dev/null"])
            .args(arguments),
    );
    shown.unwrap_or_else(|refused| panic!("dpkg {arguments:?}: {refused:#}"))
}

#[test]
fn install_upgrade_remove_and_purge_leave_what_each_should() {
    if !program::runs_as_root() {
        eprintln!("not root: dpkg cannot install into a scratch root, its life there is left out");
        return;
    }
    let scratch = Scratch::new("deb-life");
    let package = deb::build_from(&dummy_inputs(&scratch), Package::Heal).unwrap();
    let package = package.to_str().unwrap();
    let root = scratch.0.join("root");
    fs::create_dir_all(root.join("var/lib/dpkg/updates")).unwrap();
    fs::create_dir_all(root.join("var/lib/dpkg/info")).unwrap();
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let there = |path: &str| root.join(path).symlink_metadata().is_ok();
    let unit = "etc/systemd/system/multi-user.target.wants/nvme-heald.service";

    dpkg(&root, &["--install", package]);
    assert!(there("usr/sbin/nvme-heald") && there(unit), "installed and enabled");
    let groups = fs::read_to_string(root.join("etc/group")).unwrap();
    assert!(groups.contains("nvme-heal:"), "{groups}");

    fs::write(root.join("etc/nvme-heal/nvme-heald.ron"), "(changed: true)\n").unwrap();
    fs::write(root.join("var/lib/nvme-heal/incident.ron"), "").unwrap();
    fs::remove_file(root.join(unit)).unwrap();
    dpkg(&root, &["--install", package]);
    let config = fs::read_to_string(root.join("etc/nvme-heal/nvme-heald.ron")).unwrap();
    assert_eq!(config, "(changed: true)\n");
    assert!(!there(unit), "what was disabled stays disabled");

    dpkg(&root, &["--remove", "nvme-heal"]);
    assert!(!there("usr/sbin/nvme-heald"));
    assert!(there("etc/nvme-heal/nvme-heald.ron") && there("var/lib/nvme-heal/incident.ron"));

    dpkg(&root, &["--purge", "nvme-heal"]);
    assert!(!there("etc/nvme-heal") && !there("var/lib/nvme-heal"));
}

#[test]
fn an_upgrade_restarts_after_the_new_program_is_there_and_never_stops_before() {
    let prerm = script("prerm");
    assert!(prerm.contains("\"$1\" = remove ]") && !prerm.contains("upgrade"), "{prerm}");
    assert!(script("postinst").contains("action=restart"));
}

#[test]
fn the_rpm_installs_the_list_and_leaves_nothing_behind() {
    let scratch = Scratch::new("rpm");
    let inputs = dummy_inputs(&scratch);
    let package = rpm::build_from(&inputs, Package::Heal).unwrap();
    rpm::check(&package, Package::Heal, &inputs.packages.join("rpm-root")).unwrap();
}

#[test]
fn an_rpm_without_a_listed_file_does_not_pass() {
    let scratch = Scratch::new("rpm-short");
    let inputs = dummy_inputs(&scratch);
    let spec = inputs.repository.join("packaging/rpm/nvme-heal.spec");
    let text = fs::read_to_string(&spec).unwrap();
    // Forgotten by the spec: neither installed nor listed.
    let text = text.replace(
        "cp -a %{heal_stage}/. %{buildroot}/\n",
        "cp -a %{heal_stage}/. %{buildroot}/\nsed -i /65-nvme-heal.rules/d %{heal_files}\n\
         rm %{buildroot}/usr/lib/udev/rules.d/65-nvme-heal.rules\n",
    );
    fs::write(&spec, text).unwrap();
    let package = rpm::build_from(&inputs, Package::Heal).unwrap();
    let refused =
        rpm::check(&package, Package::Heal, &inputs.packages.join("rpm-root")).unwrap_err();
    assert!(refused.to_string().contains("65-nvme-heal.rules"), "{refused}");
}

#[test]
fn the_deb_satisfies_lintian() {
    if !program::on_path("lintian") {
        eprintln!("lintian is not installed: its check is left out");
        return;
    }
    let scratch = Scratch::new("lintian");
    let package = deb::build_from(&dummy_inputs(&scratch), Package::Heal).unwrap();
    // Not checked: how the dummy programs were linked.
    program::output(
        Command::new("lintian")
            .args(["--fail-on", "error,warning", "--allow-root"])
            .args(["--suppress-tags", "hardening-no-pie,hardening-no-bindnow,hardening-no-relro"])
            .arg(package),
    )
    .map_err(|refused| panic!("{refused:#}"))
    .unwrap();
}

const AGENT: &str = "os_brick/initiator/connectors/nvmeof_agent.py";

#[test]
fn the_openstack_deb_is_for_every_machine_and_puts_one_module_beside_os_bricks() {
    let scratch = Scratch::new("deb-openstack");
    let package = deb::build_from(&dummy_inputs(&scratch), Package::OpenStack).unwrap();
    assert!(package.to_string_lossy().ends_with("_all.deb"), "{}", package.display());
    let contents = dpkg_deb("--contents", &package);
    let modules: Vec<&str> = contents.lines().filter(|line| line.ends_with(".py")).collect();
    assert_eq!(modules.len(), 1, "{contents}");
    assert!(
        modules[0].ends_with(&format!("./usr/lib/python3/dist-packages/{AGENT}")),
        "{contents}"
    );
    let depends =
        program::output(Command::new("dpkg-deb").arg("--field").arg(&package).arg("Depends"));
    assert!(depends.unwrap().contains("python3-os-brick"), "alone it would be a namespace package");
    for name in ["postinst", "prerm"] {
        let path = workspace::root().join("packaging/openstack/deb").join(name);
        let script = fs::read_to_string(&path).unwrap();
        assert_eq!(forbidden_words(&script), [""; 0], "{name}");
        program::output(Command::new("sh").arg("-n").arg(path)).unwrap();
    }
}

#[test]
fn the_openstack_rpm_installs_the_list_and_leaves_nothing_behind() {
    let scratch = Scratch::new("rpm-openstack");
    let inputs = dummy_inputs(&scratch);
    let package = rpm::build_from(&inputs, Package::OpenStack).unwrap();
    rpm::check(&package, Package::OpenStack, &inputs.packages.join("rpm-root")).unwrap();
}

#[test]
fn the_fences_packages_install_the_list_and_touch_no_target() {
    let scratch = Scratch::new("fenced");
    let inputs = dummy_inputs(&scratch);
    let package = deb::build_from(&inputs, Package::Fenced).unwrap();
    let contents = dpkg_deb("--contents", &package);
    for entry in Package::Fenced.entries(Format::Deb) {
        assert!(contents.contains(entry.destination), "{} is not in {contents}", entry.destination);
    }
    for name in ["postinst", "prerm", "postrm"] {
        let path = workspace::root().join("packaging/nvmet-fenced/deb").join(name);
        let script = fs::read_to_string(&path).unwrap();
        assert_eq!(forbidden_words(&script), [""; 0], "{name}");
        let deleted = deleted_paths(&script);
        assert!(name == "postrm" || deleted.is_empty(), "{name} deletes {deleted:?}");
        assert!(deleted.iter().all(|it| it == "/var/lib/nvmet-fenced"), "{deleted:?}");
        program::output(Command::new("sh").arg("-n").arg(path)).unwrap();
    }
    let package = rpm::build_from(&inputs, Package::Fenced).unwrap();
    rpm::check(&package, Package::Fenced, &inputs.packages.join("rpm-root")).unwrap();
}

#[test]
fn the_wheel_is_of_the_workspaces_version() {
    let project = workspace::root().join("packaging/openstack/pyproject.toml");
    let project = fs::read_to_string(project).unwrap();
    let version = format!("\nversion = \"{}\"\n", super::VERSION);
    assert!(
        project.contains(&version),
        "packaging/openstack/pyproject.toml does not say {version}"
    );
}
