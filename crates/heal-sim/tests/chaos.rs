//! Stories made by dice. `CHAOS_SEEDS=FROM..TO` explores; without it a fixed corpus is replayed.

use heal_sim::chaos;

fn seeds() -> std::ops::Range<u64> {
    let parse = |text: &str| {
        let (from, to) = text.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    };
    std::env::var("CHAOS_SEEDS").ok().as_deref().and_then(parse).unwrap_or(0..100)
}

#[test]
fn no_rule_is_broken_whatever_the_dice_say() {
    let mut broken = Vec::new();
    for seed in seeds() {
        let world = chaos::told(seed, 12);
        for violation in world.violations() {
            broken.push(format!("seed {seed}: {}: {}", violation.name, violation.detail));
        }
        if std::env::var_os("CHAOS_TELL").is_some() && !world.violations().is_empty() {
            println!("seed {seed}\n{}", world.transcript.text());
        }
    }
    assert!(broken.is_empty(), "{} rules broken: {broken:#?}", broken.len());
}
