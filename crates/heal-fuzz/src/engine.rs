//! The explorer: libFuzzer, pointed at one target by `HEAL_FUZZ_TARGET`. `cargo xtask fuzz` runs
//! it.
#![no_main]
#![allow(clippy::print_stderr, reason = "a developer's tool")]

use std::sync::LazyLock;

use heal_fuzz::Target;
use libfuzzer_sys::Corpus;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("HEAL_FUZZ_TARGET").unwrap_or_default();
    heal_fuzz::target(&name).unwrap_or_else(|| {
        eprintln!("HEAL_FUZZ_TARGET names no target: {name:?}");
        std::process::exit(64)
    })
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| -> Corpus {
    if bytes.len() > TARGET.longest {
        return Corpus::Reject;
    }
    (TARGET.run)(bytes);
    Corpus::Keep
});
