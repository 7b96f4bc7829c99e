//! Groups of ranks that run collectives, with errors that say which collective failed, on which rank and at which step.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;

use anyhow::{Context, Result};
use tch::Tensor;

use oss_torch::{ProcessGroup, Work};

/// The rank and its current step, for messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub rank: usize,
    pub step: Rc<Cell<u64>>,
}

impl Place {
    fn failed(&self, what: &str) -> String {
        let Self { rank, step } = self;
        format!(
            "rank {rank}, step {}: the {what} failed; another rank died or hangs: check the other ranks' logs, or \
             raise sharding.timeout_seconds",
            step.get()
        )
    }
}

/// A process group, or this rank alone, for which every collective is a no-op.
#[derive(Debug, Default)]
pub struct Group {
    members: Option<ProcessGroup>,
    place: Place,
}

/// A collective in flight.
#[derive(Debug)]
#[must_use = "the result is available only after `wait`"]
pub struct Pending {
    work: Option<Work>,
    what: String,
    place: Place,
}

impl Group {
    pub(super) fn new(members: ProcessGroup, place: Place) -> Self {
        Self { members: Some(members), place }
    }

    /// Whether this rank is the only member.
    pub fn is_alone(&self) -> bool {
        self.members.is_none()
    }

    fn start(&self, what: String, start: impl FnOnce(&ProcessGroup) -> Result<Work>) -> Result<Pending> {
        let place = self.place.clone();
        let work = self.members.as_ref().map(start).transpose().with_context(|| place.failed(&what))?;
        Ok(Pending { work, what, place })
    }

    /// Gathers every member's part of `output`; this member's own part must already be in place. `of` is for messages.
    pub fn all_gather(&self, output: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("all-gather of {of}"), |group| group.all_gather(output))
    }

    /// Sums the members' `input` and stores this member's part of the sum in `output`; `input` is clobbered. A no-op
    /// for a single member, which already has the sum.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("reduce-scatter of {of}"), |group| group.reduce_scatter(output, input))
    }

    /// Sums the members' `tensor` in place.
    pub fn all_reduce(&self, tensor: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("all-reduce of {of}"), |group| group.all_reduce(tensor))
    }

    /// Copies the first member's `tensor` to every member.
    pub fn broadcast(&self, tensor: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("broadcast of {of}"), |group| group.broadcast(tensor, 0))
    }
}

impl Pending {
    /// Waits for the result: on the CPU this blocks the thread, on a GPU the current stream.
    ///
    /// # Errors
    /// If another rank is gone, or did not join the collective in time.
    pub fn wait(self) -> Result<()> {
        let Self { work, what, place } = self;
        work.map_or(Ok(()), Work::wait).with_context(|| place.failed(&what))
    }
}
