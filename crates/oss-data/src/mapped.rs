//! A memory-mapped file of numbers.

#![expect(unsafe_code, reason = "a memory map is unsafe by nature")]

use std::fs::File;
use std::io;

use memmap2::Mmap;

/// The little-endian u32 numbers of a memory-mapped file.
#[derive(Debug)]
pub struct MappedU32(Option<Mmap>);

impl MappedU32 {
    /// Maps a whole file, whose length must be a multiple of four bytes.
    pub fn new(file: &File) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        if !bytes.is_multiple_of(4) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{bytes} bytes is not a multiple of 4"),
            ));
        }
        if bytes == 0 {
            return Ok(Self(None));
        }
        // SAFETY: the mapping is read-only, and the files it is used for never change: they are written under another
        // name and renamed when complete. If someone else truncates one, the process is killed by SIGBUS rather than
        // misled.
        let map = unsafe { Mmap::map(file)? };
        Ok(Self(Some(map)))
    }
}

impl std::ops::Deref for MappedU32 {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        // A mapping is page-aligned, so it satisfies the alignment of u32.
        self.0.as_ref().map_or(&[], |map| bytemuck::cast_slice(map))
    }
}
