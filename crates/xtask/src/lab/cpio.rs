//! An initramfs is a cpio archive in the `newc` format; written here, as it is thirty lines.

/// Grows an archive entry by entry.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) -> anyhow::Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    pub(crate) fn file(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        self.entry(path, FILE, content)
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) -> anyhow::Result<()> {
        self.entry(path, PROGRAM, content)
    }

    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    /// Thirteen fields of eight hex digits after the magic; name and content padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.inodes += 1;
        let size = u32::try_from(content.len())?;
        let name_size = u32::try_from(path.len() + 1)?;
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_the_archive_ends_with_its_trailer() {
        let mut archive = Archive::default();
        archive.directory("bin").unwrap();
        archive.file("bin/a", b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"070701"));
        // Header 110, name `bin\0` 4, padded to 116: the second entry starts there.
        assert_eq!(&bytes[116..122], b"070701");
        assert!(String::from_utf8_lossy(&bytes).contains("TRAILER!!!"));
    }
}
