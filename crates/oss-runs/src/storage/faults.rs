//! Fault injection for tests: the Nth call to the disk fails.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Only that call fails; the program continues.
    #[default]
    Once,
    /// The disk is full for that call.
    Full,
    /// Every call from that one on fails, as if the process had been killed there.
    Killed,
}

/// Counts calls and fails the chosen one.
#[derive(Debug, Default)]
pub struct Faults {
    calls: AtomicUsize,
    chosen: Option<(usize, Fault)>,
    without_exchange: bool,
}

impl Faults {
    /// Fails call `number`, counted from 1.
    pub fn at(number: usize, fault: Fault) -> Self {
        Self { chosen: Some((number, fault)), ..Self::default() }
    }

    /// The same, on a file system that cannot exchange two directories.
    pub fn without_exchange(self) -> Self {
        Self { without_exchange: true, ..self }
    }

    /// Fails if two directories cannot be exchanged.
    pub fn exchange(&self) -> io::Result<()> {
        if self.without_exchange { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(()) }
    }

    /// Whether the chosen call has been reached.
    pub fn reached(&self) -> bool {
        self.chosen.is_some_and(|(number, _)| self.calls.load(Ordering::Relaxed) >= number)
    }

    /// Counts a call, and fails if it is the chosen one.
    pub fn gate(&self) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.chosen {
            Some((number, Fault::Once)) if call == number => Err(io::Error::other("injected fault")),
            Some((number, Fault::Full)) if call == number => Err(io::ErrorKind::StorageFull.into()),
            Some((number, Fault::Killed)) if call >= number => Err(io::Error::other("injected kill")),
            _ => Ok(()),
        }
    }
}
