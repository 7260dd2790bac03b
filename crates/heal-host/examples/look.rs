//! Prints what this host shows, and then what makes the daemon look again.
//!
//! `look [--root TREE]` prints one look. `look --follow` goes on with the event stream and the
//! counters.
#![allow(clippy::print_stdout, reason = "a tool for a terminal")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use heal_host::enumerate::Enumerator;
use heal_host::events::Sources;
use heal_host::sysfs::Root;
use heal_host::{PortalCache, clock, look};

fn main() -> Result<(), Box<dyn Error>> {
    let mut root = PathBuf::from("/");
    let mut follow = false;
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--root") => root = arguments.next().ok_or("--root needs a path")?.into(),
            Some("--follow") => follow = true,
            Some(_) | None => return Err("usage: look [--root TREE] [--follow]".into()),
        }
    }
    let root = Root::new(root);
    let mut cache = PortalCache::new();
    print(&root, &mut cache)?;
    if follow {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(stream(&root, &mut cache))?;
    }
    Ok(())
}

fn print(root: &Root, cache: &mut PortalCache) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let snapshot = look(root, cache);
    let took = begun.elapsed();
    let text = ron::ser::to_string_pretty(&snapshot, ron::ser::PrettyConfig::default())?;
    println!("{text}");
    println!(
        "// {} arrays, {} namespaces, {} unreadable, in {took:?}",
        snapshot.arrays.len(),
        snapshot.namespaces.len(),
        snapshot.unreadable.len(),
    );
    Ok(())
}

async fn stream(root: &Root, cache: &mut PortalCache) -> Result<(), Box<dyn Error>> {
    let mut sources = Sources::open(root.clone())?;
    match Enumerator::start() {
        Ok(udev) => println!("// udev knows {:?}", udev.members().await),
        Err(error) => println!("// no udev: {error}"),
    }
    loop {
        let event = sources.next().await;
        println!("// {:?} {event:?}", clock::moment());
        println!("// {:?}", sources.counters());
        print(root, cache)?;
    }
}
