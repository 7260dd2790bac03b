//! `nvme-heald --sim`: the same machine on a host that exists only in memory, told in seconds.

use std::io::{self, Write};

use heal_sim::story;

/// Tells the story `name` on standard output. `list` names all of them.
///
/// # Errors
/// When there is no such story, or it broke a rule of the product.
pub(crate) fn tell(name: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    // Whoever reads may have heard enough: a closed pipe is no failure of the story.
    let mut say = |line: &str| drop(writeln!(out, "{line}"));
    if name == "list" {
        for story in story::STORIES {
            say(&format!("{:<32} {}", story.name, story.title));
        }
        return Ok(());
    }
    Ok(story::run(name, &mut say)?)
}
