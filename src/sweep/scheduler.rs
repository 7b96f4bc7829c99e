//! The scheduler: keeps workers busy until every trial has finished.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Error, Result};

use super::Plan;
use super::halving::{Contender, Decision, decide, rungs};
use super::lease::Lease;
use super::ledger::{Entry, Event, Ledger};
use super::results::Results;
use super::worker::{End, Job, Worker};
use oss_config::error::Stopped;
use oss_config::error::{ErrorReport, Hint};
use oss_config::{Halving, OnFailure};
use oss_runs::interrupt;

/// Polling interval for workers.
const PAUSE: Duration = Duration::from_millis(20);

/// Polling interval for the work of other processes.
const PATIENCE: Duration = Duration::from_secs(1);

/// Maximum number of starts of a trial that are killed without progress.
const MAX_FRUITLESS_STARTS: u32 = 2;

/// The next action.
enum Next {
    /// Start this trial.
    Start(usize, Job, Lease),
    /// Wait for a running trial, here or elsewhere.
    Wait,
    /// Everything is finished.
    Nothing,
}

/// State of this process that is not on disk.
#[derive(Default)]
struct Memory {
    finished: BTreeSet<usize>,
    fruitless: BTreeMap<usize, u32>,
    told_of_others: bool,
}

impl Plan {
    /// Runs every unfinished trial, and failed ones if `retry_failed` is set. Other processes may work on the same
    /// sweep. Must be called from the main thread.
    ///
    /// # Errors
    /// Stopped on request; the first failure with `on_failure = "stop"`; files cannot be written.
    pub fn run(&self, retry_failed: bool) -> Result<Results> {
        let mut memory = Memory::default();
        self.register(retry_failed)?;
        let mut workers: Vec<Worker> = Vec::new();
        let mut failure = None;
        let mut looked: Option<Instant> = None;
        self.publish(&mut memory)?;
        loop {
            let stopping = interrupt::requested() || failure.is_some();
            if stopping {
                workers.iter_mut().for_each(Worker::ask_to_stop);
            }
            for (worker, end) in reap(&mut workers)? {
                let failed = self.record_end(&worker, end, stopping, &mut memory)?;
                drop(worker);
                if self.sweep.on_failure == OnFailure::Stop {
                    failure = failure.or(failed);
                }
                self.publish(&mut memory)?;
                looked = None;
            }
            // After a failure, no other trial is started.
            let stopping = stopping || failure.is_some();
            let is_time = looked.is_none_or(|looked| looked.elapsed() >= PATIENCE);
            if !stopping && is_time && workers.len() < self.gpus.len() {
                looked = Some(Instant::now());
                match self.next(&workers, &mut memory)? {
                    Next::Start(index, job, claim) => {
                        workers.push(self.start(index, &job, claim, &workers)?);
                        looked = None;
                    }
                    Next::Wait if workers.is_empty() && !memory.told_of_others => {
                        tracing::info!("waiting for trials run by another process");
                        memory.told_of_others = true;
                    }
                    Next::Wait => {}
                    Next::Nothing if workers.is_empty() => return self.publish(&mut memory),
                    Next::Nothing => {}
                }
            }
            if stopping && workers.is_empty() {
                match failure {
                    Some(failed) => {
                        return Err(failed
                            .context("stopped at the first failure (sweep.on_failure = \"stop\")")
                            .hint("fix the problem and rerun with --retry-failed"));
                    }
                    None => return Err(Stopped).hint("rerun the command to resume the sweep"),
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// Numbers new trials, and resets failed ones if requested.
    fn register(&self, retry_failed: bool) -> Result<()> {
        let mut ledger = Ledger::open(&self.dir)?;
        let ids: Vec<String> = self.trials.iter().map(super::Trial::id).collect();
        ledger.register(ids.iter().map(String::as_str).zip(self.trials.iter().map(|trial| &trial.values)))?;
        if retry_failed {
            let failed = ids.into_iter().filter(|id| ledger.entries()[id].failed.is_some());
            let events: Vec<Event> = failed.map(|id| Event::Retried { id }).collect();
            ledger.add(&events)?;
        }
        Ok(())
    }

    /// Publishes the current state in the results.
    fn publish(&self, memory: &mut Memory) -> Result<Results> {
        let ledger = Ledger::open(&self.dir)?;
        let results = self.results_of(ledger.entries(), &mut memory.finished)?;
        results.write(&self.dir)?;
        Ok(results)
    }

    fn start(&self, index: usize, job: &Job, claim: Lease, workers: &[Worker]) -> Result<Worker> {
        let trial = &self.trials[index];
        let taken: Vec<usize> = workers.iter().map(|worker| worker.share).collect();
        let slot = (0..self.gpus.len()).find(|slot| !taken.contains(slot)).unwrap_or(0);
        let worker =
            Worker::start((index, trial), job, (slot, &self.gpus[slot]), claim, &self.dir, &self.runs)?;
        let how_far = match worker.from_step {
            0 => format!("to step {}", job.to_step),
            from => format!("from step {from} to {}", job.to_step),
        };
        tracing::info!("{:<10} {trial}: {how_far}, in {}", self.label(index), trial.run().root().display());
        Ok(worker)
    }

    fn label(&self, index: usize) -> String {
        let number = super::ledger::read(&self.dir)
            .ok()
            .and_then(|entries| Some(entries.get(&self.trials[index].id())?.number));
        format!("trial {}", number.map_or_else(|| "?".to_owned(), |number| number.to_string()))
    }

    /// Reports how a trial's process ended, and records a failure; returns the error if it failed.
    fn record_end(
        &self,
        worker: &Worker,
        end: End,
        stopping: bool,
        memory: &mut Memory,
    ) -> Result<Option<Error>> {
        let trial = &self.trials[worker.trial];
        let label = self.label(worker.trial);
        let step = trial.steps_taken();
        let place = format!("at step {step} of {}", trial.steps());
        let is_there = self.is_there(worker.trial)?;
        let how = match end {
            End::Failed(report) => return self.fail(worker, &label, report).map(Some),
            End::Killed(how) => {
                tracing::warn!("{label} {how} {place}");
                Some(how)
            }
            // At a rung, a trial also stops on request.
            End::Done | End::Stopped if is_there => {
                let value = trial.metric(self.sweep.metric);
                let value = value.map_or("none".to_owned(), |value| format!("{value:.4}"));
                tracing::info!("{label:<10} {} {value} {place}", self.sweep.metric.name());
                None
            }
            End::Done | End::Stopped => {
                tracing::info!("{label:<10} stopped {place}");
                None
            }
        };
        if stopping || is_there || step > worker.from_step {
            memory.fruitless.remove(&worker.trial);
            return Ok(None);
        }
        let starts = memory.fruitless.entry(worker.trial).or_insert(0);
        *starts += 1;
        if *starts < MAX_FRUITLESS_STARTS {
            return Ok(None);
        }
        let message = match how {
            Some(how) => format!("its process {how}"),
            None => format!("no progress in {starts} starts"),
        };
        memory.fruitless.remove(&worker.trial);
        let report = ErrorReport { message, causes: Vec::new(), hints: Vec::new() };
        self.fail(worker, &label, report).map(Some)
    }

    fn fail(&self, worker: &Worker, label: &str, report: ErrorReport) -> Result<Error> {
        let trial = &self.trials[worker.trial];
        let failed = Event::Failed { id: trial.id(), error: report.summary() };
        let error = report.into_error(format!("{label} ({trial}) failed")).into();
        tracing::warn!("{}\nlog: {}", ErrorReport::from(&error), worker.log().display());
        Ledger::open(&self.dir)?.add(&[failed])?;
        Ok(error)
    }

    /// Whether a trial has reached its current target.
    fn is_there(&self, index: usize) -> Result<bool> {
        let entries = super::ledger::read(&self.dir)?;
        let entry = entries.get(&self.trials[index].id());
        entry.map_or(Ok(false), |entry| {
            self.has_reached(index, self.rung_of(index, entry), &mut BTreeSet::new())
        })
    }

    /// Makes pending decisions, then returns the first trial that is waiting for a worker.
    fn next(&self, workers: &[Worker], memory: &mut Memory) -> Result<Next> {
        let mut ledger = Ledger::open(&self.dir)?;
        while let events = self.decisions(&ledger, memory)?
            && !events.is_empty()
        {
            ledger.add(&events)?;
        }
        let mut open = Vec::new();
        for (index, trial) in self.trials.iter().enumerate() {
            let entry = &ledger.entries()[&trial.id()];
            if !self.is_out(entry)
                && !self.has_reached(index, self.rung_of(index, entry), &mut memory.finished)?
            {
                open.push((std::cmp::Reverse(entry.promotions), entry.number, index));
            }
        }
        open.sort_unstable();
        for &(_, _, index) in &open {
            if workers.iter().any(|worker| worker.trial == index) {
                continue;
            }
            let trial = &self.trials[index];
            let Some(claim) = Lease::take(&self.dir, trial.run())? else { continue };
            let to_step = self.rung_of(index, &ledger.entries()[&trial.id()]);
            // Its previous holder may just have finished it.
            if !self.has_reached(index, to_step, &mut memory.finished)? {
                return Ok(Next::Start(index, Job { to_step, until: self.until() }, claim));
            }
        }
        Ok(if open.is_empty() { Next::Nothing } else { Next::Wait })
    }

    /// The current decisions of successive halving.
    fn decisions(&self, ledger: &Ledger, memory: &mut Memory) -> Result<Vec<Event>> {
        let Some(halving) = &self.sweep.halving else { return Ok(Vec::new()) };
        let mut cohorts: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
        for (index, trial) in self.trials.iter().enumerate() {
            let entry = &ledger.entries()[&trial.id()];
            cohorts.entry(entry.cohort).or_default().push((entry.number, index));
        }
        let mut events = Vec::new();
        for mut members in cohorts.into_values() {
            members.sort_unstable();
            let steps = self.rungs(halving, members[0].1);
            let contenders: Vec<Contender> = members
                .iter()
                .map(|(_, index)| {
                    self.contender(*index, &steps, &ledger.entries()[&self.trials[*index].id()], memory)
                })
                .collect::<Result<_>>()?;
            let asynchronous = halving.asynchronous.unwrap_or(self.gpus.len() > 1);
            let reduction = halving.reduction_factor as usize;
            let decided = decide(&contenders, steps.len(), reduction, self.sweep.direction(), asynchronous);
            events.extend(decided.into_iter().map(|decision| {
                let (Decision::Promote(id) | Decision::End(id)) = &decision;
                let contender = contenders.iter().find(|contender| contender.id == *id);
                let rung = contender.map_or(0, |contender| contender.rung);
                let metric = contender.and_then(|contender| contender.metrics.get(rung).copied().flatten());
                match decision {
                    Decision::Promote(id) => Event::Promoted { id, steps: steps[rung + 1], metric },
                    Decision::End(id) => Event::Ended { id, metric },
                }
            }));
        }
        Ok(events)
    }

    fn contender(
        &self,
        index: usize,
        rungs: &[u64],
        entry: &Entry,
        memory: &mut Memory,
    ) -> Result<Contender> {
        let trial = &self.trials[index];
        let to_step = self.rung_of(index, entry);
        let rung = rungs.iter().position(|steps| *steps == to_step).unwrap_or(0);
        let reached = self.has_reached(index, to_step, &mut memory.finished)?;
        let known = if reached { rung + 1 } else { rung };
        let metric =
            |steps: &u64| trial.metric_at(self.sweep.metric, *steps).filter(|value| value.is_finite());
        Ok(Contender {
            id: trial.id(),
            rung,
            reached,
            out: self.is_out(entry),
            metrics: rungs[..known].iter().map(metric).collect(),
        })
    }

    fn rungs(&self, halving: &Halving, index: usize) -> Vec<u64> {
        rungs(halving, self.trials[index].steps())
    }

    /// The target step of a trial.
    fn rung_of(&self, index: usize, entry: &Entry) -> u64 {
        match &self.sweep.halving {
            None => self.trials[index].steps(),
            Some(halving) => entry.promoted_to.unwrap_or(self.rungs(halving, index)[0]),
        }
    }

    /// Whether a trial has reached its target step, with the metric it is compared by.
    fn has_reached(&self, index: usize, to_step: u64, finished: &mut BTreeSet<usize>) -> Result<bool> {
        let trial = &self.trials[index];
        if to_step >= trial.steps() {
            return self.is_finished(index, finished);
        }
        // A stop between a rung's checkpoint and its evaluation leaves the checkpoint without a metric.
        let is_scored =
            || !self.sweep.metric.is_validation() || trial.has_metric_at(self.sweep.metric, to_step);
        Ok(trial.steps_taken() >= to_step && is_scored())
    }
}

/// Removes and returns the workers that have ended.
fn reap(workers: &mut Vec<Worker>) -> Result<Vec<(Worker, End)>> {
    let mut ended = Vec::new();
    let mut index = 0;
    while index < workers.len() {
        match workers[index].ended()? {
            Some(end) => ended.push((workers.remove(index), end)),
            None => index += 1,
        }
    }
    Ok(ended)
}
