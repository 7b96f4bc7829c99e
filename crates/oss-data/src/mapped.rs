//! A file of numbers as memory.

#![expect(unsafe_code, reason = "a memory map is unsafe by nature")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// The little-endian u32 numbers of a file, mapped into memory.
#[derive(Debug)]
pub struct MappedU32(Option<Mmap>);

impl MappedU32 {
    /// Maps a whole file, whose length is a multiple of four bytes.
    pub fn new(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        if !bytes.is_multiple_of(4) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{bytes} bytes are no whole numbers"),
            ));
        }
        if bytes == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the mapping is read only, and the files that it is used for are never changed: they are written under
        // another name and renamed when complete. Someone else who truncates one gets us killed by SIGBUS, not misled.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(Some(map)))
    }
}

impl std::ops::Deref for MappedU32 {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        // A mapping starts at a page, so the cast finds its alignment.
        self.0.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}
