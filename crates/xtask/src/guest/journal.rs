//! Finds entries of the daemon's journal by their fields, so that a scenario asserts on meaning and
//! not on the words of a message.

use std::process::Command;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::lab::verdict::text;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(long, default_value = "nvme-heald.service")]
    unit: String,
    /// The value of `NVME_HEAL_EVENT`.
    #[arg(long)]
    event: Option<String>,
    /// A field and its value; `array` stands for `NVME_HEAL_ARRAY` unless there is a field of that
    /// name.
    #[arg(long = "field", value_name = "FIELD=VALUE")]
    fields: Vec<String>,
    /// Text the message must hold.
    #[arg(long)]
    text: Option<String>,
    /// Print how many there are, and succeed.
    #[arg(long)]
    count: bool,
    /// Print the value of this field of each, instead of the message.
    #[arg(long)]
    print: Option<String>,
}

/// What an entry must be like.
#[derive(Debug)]
struct Wanted {
    fields: Vec<(String, String)>,
    text: Option<String>,
}

impl Wanted {
    fn from_args(args: &Args) -> anyhow::Result<Self> {
        let mut fields = Vec::new();
        for field in &args.fields {
            let (name, value) =
                field.split_once('=').with_context(|| format!("`{field}` is not FIELD=VALUE"))?;
            fields.push((name.to_owned(), value.to_owned()));
        }
        if let Some(event) = &args.event {
            fields.push(("event".to_owned(), event.clone()));
        }
        Ok(Self { fields, text: args.text.clone() })
    }

    fn holds(&self, entry: &Value) -> bool {
        self.fields.iter().all(|(name, value)| &field(entry, name) == value)
            && self.text.as_ref().is_none_or(|text| field(entry, "MESSAGE").contains(text.as_str()))
    }
}

/// A field by its name, or by the short form of one of ours.
fn field(entry: &Value, name: &str) -> String {
    let upper = name.to_uppercase().replace(['-', '.'], "_");
    let ours = format!("NVME_HEAL_{upper}");
    let found =
        [name, upper.as_str(), ours.as_str()].into_iter().find(|name| entry.get(name).is_some());
    found.map(|name| text(entry, name)).unwrap_or_default()
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let wanted = Wanted::from_args(args)?;
    let mut journalctl = Command::new("journalctl");
    journalctl.args(["-q", "-o", "json", "-u", &args.unit]);
    match std::env::var("LAB_CURSOR") {
        Ok(cursor) if !cursor.is_empty() => journalctl.args(["--after-cursor", &cursor]),
        Ok(_) | Err(_) => journalctl.arg("-b"),
    };
    let output = journalctl.output().context("cannot run journalctl")?;
    if !output.status.success() {
        bail!("journalctl: {}", String::from_utf8_lossy(&output.stderr));
    }
    let journal = String::from_utf8_lossy(&output.stdout);
    let found: Vec<Value> = journal
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        // Not what systemd says about the unit: a description may hold any text.
        .filter(|entry| text(entry, "_SYSTEMD_UNIT") == args.unit)
        .filter(|entry| wanted.holds(entry))
        .collect();
    if args.count {
        println!("{}", found.len());
        return Ok(());
    }
    for entry in &found {
        println!("{}", field(entry, args.print.as_deref().unwrap_or("MESSAGE")));
    }
    if found.is_empty() {
        // A plain "no" for the shell, without an error message.
        std::process::exit(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(fields: &[(&str, &str)], text: Option<&str>) -> Wanted {
        let fields = fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Wanted { fields, text: text.map(str::to_owned) }
    }

    #[test]
    fn an_entry_is_found_by_short_and_by_full_field_names() {
        let entry = serde_json::json!({
            "NVME_HEAL_EVENT": "leg.add.done", "NVME_HEAL_ARRAY": "md127", "PRIORITY": "6",
            "MESSAGE": "md127: added nvme3n1",
        });
        assert!(wanted(&[("event", "leg.add.done"), ("array", "md127")], None).holds(&entry));
        assert!(wanted(&[("PRIORITY", "6")], Some("added")).holds(&entry));
        assert!(!wanted(&[("array", "md1")], None).holds(&entry));
        assert!(!wanted(&[("no_such_field", "x")], None).holds(&entry));
    }
}
