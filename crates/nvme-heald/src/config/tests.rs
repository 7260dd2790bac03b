use std::collections::BTreeSet;

use heal_types::GracePolicy;

use super::*;

const EXAMPLE: &str = include_str!("../../../../packaging/config/nvme-heald.ron");

/// The example with every option switched on: `//` without a space is an option, with one is prose.
fn uncommented() -> String {
    let mut text = String::new();
    for line in EXAMPLE.lines() {
        match line.trim_start().strip_prefix("//") {
            Some(option) if !option.is_empty() && !option.starts_with("  ") => {
                let is_prose = option.starts_with(' ') || option.starts_with('-');
                if !is_prose {
                    text.push_str(option);
                }
            }
            // Inside a group options are indented behind the slashes.
            Some(option) if option.starts_with("    ") && !option.starts_with("     ") => {
                text.push_str(option);
            }
            Some(_) => {}
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn refused(text: &str) -> String {
    parse(text, "heald.ron").unwrap_err().to_string()
}

#[test]
fn the_example_changes_nothing_as_it_is_shipped() {
    let loaded = parse(EXAMPLE, "example").unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings, vec![]);
}

#[test]
fn the_example_uncommented_is_the_defaults() {
    let loaded = parse(&uncommented(), "example").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn every_option_stands_in_the_example() {
    fn names(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        if let serde_json::Value::Object(fields) = value {
            for (name, value) in fields {
                found.insert(name.clone());
                names(value, found);
            }
        }
    }
    let mut found = BTreeSet::new();
    names(&serde_json::to_value(Config::default()).unwrap(), &mut found);
    assert!(found.len() > 25, "{found:?}");
    let text = uncommented();
    for name in found {
        let set = text.lines().any(|line| line.trim_start().starts_with(&format!("{name}:")));
        assert!(set, "{name} is not in the example");
    }
}

#[test]
fn what_the_example_shows_in_prose_is_valid_too() {
    let mut shown = String::new();
    let mut inside = false;
    for line in EXAMPLE.lines() {
        let Some(sample) = line.trim_start().strip_prefix("//     ") else {
            continue;
        };
        inside |= sample.ends_with(": {") || sample.ends_with(": Fixed(");
        if inside {
            shown.push_str(sample);
            shown.push('\n');
            inside = !(sample.starts_with(')') || sample.starts_with('}'));
        }
    }
    assert!(shown.contains("provisioner: Fixed(") && shown.contains("\"scratch\""), "{shown}");
    let loaded =
        parse(&format!("({shown})"), "prose").unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(loaded.config.arrays.len(), 3);
    assert!(matches!(loaded.config.provisioner, ProvisionerConfig::Fixed { .. }));
}

#[test]
fn every_backend_that_the_example_shows_is_valid() {
    let mut samples: Vec<String> = Vec::new();
    let mut inside = false;
    for line in EXAMPLE.lines() {
        let Some(sample) = line.trim_start().strip_prefix("//     ") else { continue };
        if sample.starts_with("provisioner: ") {
            inside = true;
            samples.push(String::new());
        }
        if inside {
            samples.last_mut().unwrap().push_str(&format!("{sample}\n"));
            inside = !sample.starts_with(')');
        }
    }
    let shown: Vec<&str> = samples
        .iter()
        .map(|sample| {
            let loaded = parse(&format!("({sample})"), "prose").unwrap_or_else(|error| {
                panic!("{error}\n{sample}");
            });
            loaded.config.provisioner.name()
        })
        .collect();
    assert_eq!(shown, ["fixed", "kumoscale", "http", "exec"]);
}

#[test]
fn a_server_that_is_not_verified_takes_two_options() {
    let with = |access: &str| {
        let text = format!("(provisioner: Http(urls: [\"https://p/\"], access: ({access})))");
        parse(&text, "heald.ron")
    };
    assert!(with("").unwrap().warnings.is_empty());
    let one = with("skip_verification: true").unwrap_err().to_string();
    assert!(one.contains("anybody_may_pose_as_the_provisioner"), "{one}");
    let both = "skip_verification: true, anybody_may_pose_as_the_provisioner: true";
    assert!(with(both).unwrap().warnings[0].to_string().contains("not verified"));
    for bad in ["pins: [\"ab\"]", "token_file: \"token\"", "password: \"hunter2\""] {
        assert!(with(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_unknown_option_is_refused_with_its_place_and_a_guess() {
    let message = refused("(\n    mode: Heal,\n    grase: \"10m\",\n)\n");
    assert!(message.starts_with("heald.ron:3:5: unknown field `grase`"), "{message}");
    assert!(message.contains("did you mean `grace`?"), "{message}");
    assert!(message.contains("3 |     grase: \"10m\",\n  |     ^^^^^"), "{message}");
    let nested = refused("(timing: (atempts: 3))");
    assert!(nested.contains("did you mean `attempts`?"), "{nested}");
    let variant = refused("(provisioner: Fixed(inventry: \"/a\", state: \"/b\"))");
    assert!(variant.contains("did you mean `inventory`?"), "{variant}");
    let word = refused("(mode: Heel)");
    assert!(word.contains("did you mean `Heal`?"), "{word}");
}

#[test]
fn a_number_without_a_unit_is_no_duration() {
    assert!(refused("(grace: \"10\")").contains("it has no unit"));
    assert!(refused("(safety_scan: \"60\")").contains("it has no unit"));
    assert!(refused("(safety_scan: 60)").contains("or Off"), "{}", refused("(safety_scan: 60)"));
}

#[test]
fn the_safety_scan_is_a_duration_or_off_and_nothing_else() {
    let scan = |text: &str| parse(text, "x").unwrap().config.safety_scan();
    assert_eq!(scan("(safety_scan: Off)"), None);
    assert_eq!(scan("(safety_scan: \"off\")"), None);
    assert_eq!(scan("(safety_scan: \"90s\")"), Some(Duration::from_secs(90)));
    assert!(parse("(safety_scan: On)", "x").is_err());
    assert!(parse("(safety_scan: None)", "x").is_err());
}

#[test]
fn values_that_contradict_each_other_are_all_named_with_their_lines() {
    let text = "(\n connect: (keep_alive: \"20s\"),\n timing: (\n  return_hold_down: \"15s\",\n  \
                retry_min: \"2m\",\n ),\n grace: \"8d\",\n)";
    let message = refused(text);
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 3, "{message}");
    assert!(
        lines[0].starts_with("heald.ron:7: grace: 8d is longer than longest_grace"),
        "{message}"
    );
    assert!(lines[1].starts_with("heald.ron:5: timing.retry_min"), "{message}");
    assert!(lines[2].starts_with("heald.ron:4: timing.return_hold_down: 15s"), "{message}");
}

#[test]
fn values_outside_their_range_are_refused() {
    for text in [
        "(limits: (replacements: 0))",
        "(limits: (storm_window: \"2h\"))",
        "(connect: (keep_alive: \"1500ms\"))",
        "(connect: (io_queues: 0))",
        "(connect: (host_nqn: \"--x\"))",
        "(timing: (attempts: 0))",
        "(timing: (namespace_timeout: \"0s\"))",
        "(provisioner_timeout: \"0s\")",
        "(safety_scan: \"1s\")",
        "(state_dir: \"relative\")",
        "(provisioner: Fixed(inventory: \"/a\", state: \"/a\"))",
        "(arrays: {\"a/b\": (mode: Heal)})",
        "(arrays: {\"x\": (grace: \"30d\")})",
    ] {
        assert!(parse(text, "x").is_err(), "{text}");
    }
}

#[test]
fn what_is_odd_is_a_warning() {
    let loaded = parse("(mode: Heal, runtime_dir: \"/tmp/x\", arrays: {\"a\": ()})", "x").unwrap();
    let options: Vec<_> = loaded.warnings.iter().map(|problem| problem.option).collect();
    assert_eq!(options, ["runtime_dir", "mode", "arrays"]);
}

#[test]
fn an_override_by_uuid_goes_before_one_by_name() {
    let id: ArrayId = "8e0a1b6c:1f2e3d4c:5b6a7988:00112233".parse().unwrap();
    let alias = Alias::new("data").unwrap();
    let text = "(grace: \"1m\", arrays: {\"data\": (mode: Heal, grace: \"never\"), \
                \"8e0a1b6c-1f2e-3d4c-5b6a-798800112233\": (grace: \"5m\")})";
    let config = parse(text, "x").unwrap().config;
    let policy = config.policy(id, Some(&alias));
    assert_eq!(policy.mode, Mode::Heal);
    assert_eq!(policy.grace, GracePolicy::After(Duration::from_secs(300)));
    let other = config.policy(ArrayId::from_bytes([1; 16]), None);
    assert_eq!(
        (other.mode, other.grace),
        (Mode::Observe, GracePolicy::After(Duration::from_secs(60)))
    );
}

#[test]
fn a_path_that_a_terminal_would_act_on_is_refused_in_plain_words() {
    for path in ["/run/a\\u{1b}[2Jb", "/run/a\\0", "run/a\\nb"] {
        let message = refused(&format!("(runtime_dir: \"{path}\")"));
        assert!(message.ends_with("holds a control character"), "{message:?}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn no_text_makes_it_panic() {
    let whole = uncommented();
    for end in (0..=whole.len()).filter(|end| whole.is_char_boundary(*end)).step_by(7) {
        let _ = parse(&whole[..end], "x").map_err(|error| error.to_string());
    }
}

#[test]
fn a_running_daemon_takes_policy_up_and_names_the_rest() {
    let old = Config::default();
    let text =
        "(mode: Heal, re_add: true, grace: \"1m\", safety_scan: Off, limits: (replacements: 5))";
    let new = parse(text, "x").unwrap().config;
    assert_eq!(old.needs_restart(&new), ["limits", "safety_scan"]);
    let taken = old.taking_up(new);
    assert_eq!((taken.mode, taken.re_add), (Mode::Heal, true));
    assert_eq!((taken.limits, taken.safety_scan), (old.limits, old.safety_scan));
}
