//! What a package's scripts must never do.
//!
//! A script runs on hosts with live arrays, often unattended, on upgrade as well as on purge. So
//! none may name a program that changes an array, a connection or a namespace, nor wake every
//! device with a trigger: a test of words, crude enough that nobody has to be trusted to read shell
//! well.

/// Programs and options with no place in a package script.
const FORBIDDEN: [&str; 9] = [
    "mdadm",
    "nvme",
    "--stop",
    "disconnect",
    "disconnect-all",
    "modprobe",
    "rmmod",
    "trigger",
    "wipefs",
];

/// The forbidden words a script uses, comments left out.
pub(super) fn forbidden_words(script: &str) -> Vec<&str> {
    script
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"';|&(){}=<>/`$".contains(c)))
        .filter(|word| FORBIDDEN.contains(word))
        .collect()
}
