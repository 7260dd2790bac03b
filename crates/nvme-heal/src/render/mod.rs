//! What a person sees, as pure functions of the daemon's answer.
//!
//! Problems come first, one line each, because that is why somebody typed the command at three in
//! the morning. Then the table: everything, one line an array. Columns are as wide as their widest
//! cell, and only the last one gives way when the terminal is narrow.
//!
//! Text that came over the socket may have come from a target: control characters are taken out
//! before they reach a terminal.

mod table;

use heal_types::WallTime;
use heal_types::status::{ArrayStatus, Explanation, Health, HostStatus, LegStatus, RepairStatus};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::verdict::{Verdict, has, is_good, of_array};
use table::Table;

/// What the output can show.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Columns, where there is an edge.
    pub(crate) width: Option<usize>,
    pub(crate) colour: bool,
    /// Dots for legs; else MD's own `[U_]`.
    pub(crate) dots: bool,
    pub(crate) zone: TimeZone,
}

/// How loud a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Look {
    fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "1;31",
            Tone::Faint => "2",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// `text` on one line, without anything a terminal would act on.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// `nvme-heal status`.
pub(crate) fn status(status: &HostStatus, look: &Look) -> String {
    let mut out = String::new();
    for alarm in &status.alarms {
        push_problem(&mut out, look, Tone::Bad, &format!("host: {alarm}"));
    }
    let mut troubled: Vec<(&ArrayStatus, Verdict)> =
        status.arrays.iter().map(|array| (array, of_array(array))).collect();
    troubled.retain(|(_, verdict)| *verdict > Verdict::Well);
    troubled.sort_by_key(|(_, verdict)| std::cmp::Reverse(*verdict));
    for (array, verdict) in &troubled {
        let text = format!("{}: {}", name(array), array.summary);
        push_problem(&mut out, look, verdict_tone(*verdict), &text);
    }
    for array in &status.arrays {
        if let Some(fault) = &array.provisioner_fault {
            let text = format!("{}: the provisioner does not help: {fault}", name(array));
            push_problem(&mut out, look, Tone::Warning, &text);
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    if status.arrays.is_empty() {
        out.push_str("no md arrays on this host\n");
    } else {
        out.push_str(&arrays(status, look));
    }
    let foot = format!(
        "nvme-heald {}, mode {}, provisioner {}",
        status.version, status.mode, status.provisioner
    );
    out.push_str(&format!("\n{}\n", look.paint(Tone::Faint, &plain(&foot))));
    out
}

fn push_problem(out: &mut String, look: &Look, tone: Tone, text: &str) {
    out.push_str(&look.paint(tone, "! "));
    out.push_str(&plain(text));
    out.push('\n');
}

fn arrays(status: &HostStatus, look: &Look) -> String {
    let mut table = Table::new(["ARRAY", "NAME", "STATE", "LEGS", "REBUILD", "NEXT"]);
    for array in &status.arrays {
        let percent = array.repairs.iter().find_map(|repair| repair.percent);
        table.row([
            (plain(&array.device), Tone::Plain),
            (plain(array.alias.as_deref().unwrap_or("-")), Tone::Plain),
            (state_word(array), health_tone(array)),
            (legs(array, look), Tone::Plain),
            (percent.map_or("-".to_owned(), |done| format!("{done} %")), Tone::Plain),
            (plain(&next(array, status.at)), Tone::Plain),
        ]);
    }
    table.render(look)
}

fn state_word(array: &ArrayStatus) -> String {
    match array.health {
        Health::Optimal => "optimal".to_owned(),
        Health::Healing => plain(&array.phase),
        Health::Held => "held".to_owned(),
        Health::Quarantined => "quarantined".to_owned(),
        Health::Observed => "observed".to_owned(),
    }
}

fn health_tone(array: &ArrayStatus) -> Tone {
    match array.health {
        Health::Observed => Tone::Faint,
        Health::Optimal | Health::Healing | Health::Held | Health::Quarantined => {
            match of_array(array) {
                Verdict::Well => Tone::Good,
                verdict @ (Verdict::Warning | Verdict::Critical | Verdict::CannotTell) => {
                    verdict_tone(verdict)
                }
            }
        }
    }
}

fn verdict_tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Well => Tone::Good,
        Verdict::Warning => Tone::Warning,
        Verdict::Critical | Verdict::CannotTell => Tone::Bad,
    }
}

/// One mark for each slot, and a letter for what is special about it:
/// F faulty, R being rebuilt, P no path, W to be replaced, N the replacement, - no leg, S a spare.
fn legs(array: &ArrayStatus, look: &Look) -> String {
    let mut slots: Vec<u16> = array.legs.iter().filter_map(|leg| leg.slot).collect();
    slots.extend(array.repairs.iter().map(|repair| repair.slot));
    slots.sort_unstable();
    slots.dedup();
    let mut marks = Vec::new();
    for slot in slots {
        let here: Vec<_> = array.legs.iter().filter(|leg| leg.slot == Some(slot)).collect();
        if here.is_empty() {
            marks.push(mark(look, false, "-"));
        }
        marks.extend(here.iter().map(|leg| mark(look, is_good(leg), flag(leg))));
    }
    let outside = array.legs.iter().filter(|leg| leg.slot.is_none());
    marks.extend(outside.map(|leg| mark(look, false, flag(leg))));
    if marks.is_empty() {
        return "-".to_owned();
    }
    if look.dots { marks.join(" ") } else { format!("[{}]", marks.concat()) }
}

fn mark(look: &Look, good: bool, flag: &str) -> String {
    match (look.dots, good) {
        (true, true) => format!("●{flag}"),
        (true, false) => format!("○{flag}"),
        (false, true) => format!("U{}", flag.to_lowercase()),
        (false, false) if flag.is_empty() => "_".to_owned(),
        (false, false) => format!("_{}", flag.to_lowercase()),
    }
}

fn flag(leg: &LegStatus) -> &'static str {
    if has(leg, "faulty") {
        "F"
    } else if has(leg, "journal") {
        "J"
    } else if leg.slot.is_none() {
        "S"
    } else if has(leg, "replacement") {
        "N"
    } else if !has(leg, "in_sync") {
        "R"
    } else if leg.path != "up" {
        "P"
    } else if has(leg, "want_replacement") {
        "W"
    } else {
        ""
    }
}

/// What happens next, and when.
fn next(array: &ArrayStatus, now: WallTime) -> String {
    let soonest = |repair: &&RepairStatus| (repair.due.is_none(), repair.due);
    match array.repairs.iter().min_by_key(soonest) {
        Some(repair) => match repair.due {
            Some(due) if due > now => {
                format!(
                    "slot {}: {} in {}",
                    repair.slot,
                    repair.next,
                    span(due.since(now).as_secs())
                )
            }
            Some(_) => format!("slot {}: {} now", repair.slot, repair.next),
            None => format!("slot {}: {}", repair.slot, repair.next),
        },
        None => match array.owed_reports.first() {
            Some(owed) => format!("tell the provisioner that {owed}"),
            None => "-".to_owned(),
        },
    }
}

/// `4m12s`, `2h05m`, `3d04h`: two units are as exact as anybody plans.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

fn name(array: &ArrayStatus) -> String {
    match &array.alias {
        Some(alias) => format!("{} ({alias})", array.device),
        None => array.device.clone(),
    }
}

/// `nvme-heal explain`.
pub(crate) fn explanation(explanation: &Explanation, look: &Look) -> String {
    let array = &explanation.array;
    let mut out = String::new();
    let state = look.paint(health_tone(array), &state_word(array));
    out.push_str(&format!("{}: {state}: {}\n", plain(&name(array)), plain(&array.summary)));
    out.push_str(&format!("  UUID {}\n", plain(&array.id)));
    if let Some(volume) = &array.volume {
        out.push_str(&format!("  volume {}\n", plain(volume)));
    }
    if let Some(incident) = &array.incident {
        out.push_str(&format!(
            "  incident {0}: journalctl NVME_HEAL_INCIDENT={0}\n",
            plain(incident)
        ));
    }
    if !array.legs.is_empty() {
        let mut table = Table::new(["SLOT", "LEG", "STATE", "PATH", "REPLICA", "NAMESPACE"]);
        for leg in &array.legs {
            let tone = if is_good(leg) { Tone::Good } else { Tone::Warning };
            table.row([
                (leg.slot.map_or("-".to_owned(), |slot| slot.to_string()), Tone::Plain),
                (plain(&leg.device), Tone::Plain),
                (plain(&leg.state), tone),
                (plain(&leg.path), Tone::Plain),
                (plain(leg.replica.as_deref().unwrap_or("-")), Tone::Plain),
                (plain(&leg.namespace), Tone::Plain),
            ]);
        }
        out.push('\n');
        out.push_str(&table.render(look));
    }
    section(&mut out, look, "What is known", &explanation.knows);
    section(&mut out, look, "Which rules hold", &explanation.rules);
    section(&mut out, look, "What happens next", &explanation.next);
    let trail: Vec<String> = explanation
        .trail
        .iter()
        .map(|entry| format!("{}  {}", clock(entry.at, &look.zone), entry.message))
        .collect();
    section(&mut out, look, "What happened", &trail);
    out
}

fn section(out: &mut String, look: &Look, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    out.push_str(&format!("\n{}\n", look.paint(Tone::Faint, title)));
    for line in lines {
        out.push_str(&format!("  {}\n", plain(line)));
    }
}

fn clock(at: WallTime, zone: &TimeZone) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    match Timestamp::from_millisecond(millis) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests;
