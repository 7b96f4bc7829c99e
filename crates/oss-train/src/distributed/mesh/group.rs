//! Ranks that exchange tensors, with errors that say what was exchanged, where and when.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;

use anyhow::{Context, Result};
use tch::Tensor;

use oss_torch::{ProcessGroup, Work};

/// Who speaks and how far training is, for messages.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub rank: usize,
    pub step: Rc<Cell<u64>>,
}

impl Place {
    fn failed(&self, what: &str) -> String {
        let Self { rank, step } = self;
        format!(
            "rank {rank}, step {}: the {what} failed; another rank died or hangs: look at the logs of the others, or \
             raise sharding.timeout_seconds",
            step.get()
        )
    }
}

/// Ranks that exchange tensors, or this rank alone, for which every exchange is done before it begins.
#[derive(Debug, Default)]
pub struct Group {
    members: Option<ProcessGroup>,
    place: Place,
}

/// An exchange under way.
#[derive(Debug)]
#[must_use = "the result is there only after `wait`"]
pub struct Pending {
    work: Option<Work>,
    what: String,
    place: Place,
}

impl Group {
    pub(super) fn new(members: ProcessGroup, place: Place) -> Self {
        Self { members: Some(members), place }
    }

    /// Whether there is nobody else.
    pub fn is_alone(&self) -> bool {
        self.members.is_none()
    }

    fn start(&self, what: String, start: impl FnOnce(&ProcessGroup) -> Result<Work>) -> Result<Pending> {
        let place = self.place.clone();
        let work = self.members.as_ref().map(start).transpose().with_context(|| place.failed(&what))?;
        Ok(Pending { work, what, place })
    }

    /// Joins the members' parts of `output` in it; this member's own part is there already. `of` is for messages.
    pub fn all_gather(&self, output: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("all-gather of {of}"), |group| group.all_gather(output))
    }

    /// Sums the members' `input` and leaves this member's part of the sum in `output`; `input` is used up. Nothing
    /// happens to a member alone: it has its sum already.
    pub fn reduce_scatter(&self, output: &Tensor, input: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("reduce-scatter of {of}"), |group| group.reduce_scatter(output, input))
    }

    /// Sums the members' `tensor` in place.
    pub fn all_reduce(&self, tensor: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("all-reduce of {of}"), |group| group.all_reduce(tensor))
    }

    /// Gives every member the `tensor` of the first.
    pub fn broadcast(&self, tensor: &Tensor, of: impl Display) -> Result<Pending> {
        self.start(format!("broadcast of {of}"), |group| group.broadcast(tensor, 0))
    }
}

impl Pending {
    /// Waits for the result: on the CPU the thread does, on a GPU the current stream.
    ///
    /// # Errors
    /// Another rank is gone, or did not take part in time.
    pub fn wait(self) -> Result<()> {
        let Self { work, what, place } = self;
        work.map_or(Ok(()), Work::wait).with_context(|| place.failed(&what))
    }
}
