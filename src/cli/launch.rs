//! The launcher: starts the ranks of a command on this machine, monitors them, and restarts them after a failure.

use std::env;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::failure::AlreadyReported;
use crate::runner::RUN;
use oss_config::Experiment;
use oss_config::error::{Hint, Status, UserError};
use oss_runs::interrupt;
use oss_runs::run_dir::Host;
use oss_torch::Store;
use oss_train::distributed::{Failure, GracePeriod, Launch, Outcome, supervise};

/// The arguments of this process.
pub fn own_arguments() -> Vec<OsString> {
    env::args_os().skip(1).collect()
}

/// Starts this program once per rank of `experiment`, with this process's arguments, and waits for all ranks to exit.
///
/// When a rank fails, all ranks are restarted, up to `sharding.max_restarts` times. If rank 0 has published its run
/// directory by then, the restart uses the arguments that `resumed` builds from it.
///
/// # Errors
/// A rank failed, the store cannot be served, or a process cannot be started.
pub fn launch(experiment: &Experiment, resumed: impl Fn(&Path) -> Vec<OsString>) -> Result<()> {
    let sharding = &experiment.sharding;
    check_ranks(sharding.ranks, Host::this().cores as u64)?;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr().context("cannot get the address of the rendezvous store")?.port();
    let store = Store::serve(listener, Duration::from_secs(sharding.timeout_seconds))?;
    let program = env::current_exe().context("cannot find the path of this executable")?;
    let mut launch = Launch {
        ranks: usize::try_from(sharding.ranks)?,
        port,
        restart: 0,
        id: format!("{}-{port}", process::id()),
    };
    let mut arguments = own_arguments();
    let mut run = None;
    let outcome = restarting(sharding.max_restarts, |restart| {
        launch.restart = restart;
        let outcome = start(&program, &arguments, &launch)?;
        if let Some(told) = announced_run(&store, &launch)? {
            arguments = resumed(&told);
            run = Some(told);
        }
        Ok(outcome)
    })?;
    ended(outcome, run.as_deref())
}

/// A machine can run more ranks than it has cores, slowly, but not any number of them.
fn check_ranks(ranks: u64, cores: u64) -> Result<()> {
    let most = (16 * cores).max(64);
    ensure!(
        ranks <= most,
        UserError::wrong(format!("{ranks} ranks are too many for this machine, which has {cores} cores"))
            .hint(format!(
                "set sharding.ranks to at most {most}, or start the ranks on several machines with torchrun or SLURM"
            ))
    );
    Ok(())
}

/// Starts all ranks once and waits until they have exited.
fn start(program: &Path, arguments: &[OsString], launch: &Launch) -> Result<Outcome> {
    let commands = (0..launch.ranks).map(|rank| {
        let mut command = Command::new(program);
        command.args(arguments).envs(launch.environment(rank));
        command
    });
    supervise(commands.collect(), GracePeriod::default(), interrupt::requested)
        .context("cannot start the ranks")
        .hint("if this machine cannot run that many, set a smaller sharding.ranks")
}

/// Repeats `attempt` until it does not fail, or after `most` restarts.
fn restarting(most: u64, mut attempt: impl FnMut(u64) -> Result<Outcome>) -> Result<Outcome> {
    let mut restart = 0;
    loop {
        match attempt(restart)? {
            Outcome::Failed(failure) if restart < most && !interrupt::requested() => {
                restart += 1;
                tracing::warn!("{failure}\nrestarting all ranks (restart {restart} of {most})");
            }
            outcome => return Ok(outcome),
        }
    }
}

/// The run directory of rank 0, if it got that far.
fn announced_run(store: &Store, launch: &Launch) -> Result<Option<PathBuf>> {
    let told = store.get(&format!("{}/{RUN}", launch.prefix()))?;
    Ok(told.map(|bytes| PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())))
}

/// The result of the command.
fn ended(outcome: Outcome, run: Option<&Path>) -> Result<()> {
    Err(match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Stopped => AlreadyReported(Status::Stopped).into(),
        Outcome::Wrong(failure) if was_printed(&failure) => AlreadyReported(Status::Wrong).into(),
        Outcome::Failed(failure) if was_printed(&failure) => AlreadyReported(Status::Failed).into(),
        Outcome::Wrong(failure) => UserError::wrong(failure).into(),
        Outcome::Failed(failure) => {
            let error = UserError::failed(failure);
            let resume_hint = |run: &Path| {
                format!("run `oss-run resume {}` to continue from the last good checkpoint", run.display())
            };
            match run {
                Some(run) => error.hint(resume_hint(run)).into(),
                None => error.into(),
            }
        }
    })
}

/// Whether rank 0 has reported it itself.
fn was_printed(failure: &Failure) -> bool {
    failure.rank == 0 && matches!(failure.how.status(), Some(Status::Failed | Status::Wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_train::distributed::ExitReason;

    fn failure(rank: usize, how: ExitReason) -> Failure {
        Failure { rank, how, last_lines: Vec::new() }
    }

    fn attempts(most: u64, outcomes: &[Outcome]) -> (Outcome, usize) {
        let mut made = 0;
        let last = restarting(most, |restart| {
            assert_eq!(restart, made as u64);
            made += 1;
            Ok(outcomes[made - 1].clone())
        });
        (last.unwrap(), made)
    }

    #[test]
    fn only_failures_are_restarted_and_not_forever() {
        let failed = || Outcome::Failed(failure(1, ExitReason::Signal(9)));
        let wrong = || Outcome::Wrong(failure(1, ExitReason::Status(2)));
        assert_eq!(attempts(0, &[failed()]), (failed(), 1));
        assert_eq!(attempts(2, &[failed(), Outcome::Done]), (Outcome::Done, 2));
        assert_eq!(attempts(2, &[failed(), failed(), failed()]), (failed(), 3));
        assert_eq!(attempts(2, &[Outcome::Stopped]), (Outcome::Stopped, 1));
        assert_eq!(attempts(2, &[wrong()]), (wrong(), 1));
    }

    #[test]
    fn what_rank_0_reported_is_not_repeated() {
        let said = |outcome| {
            let error = ended(outcome, Some(Path::new("runs/a/b"))).unwrap_err();
            match error.downcast::<AlreadyReported>() {
                Ok(AlreadyReported(status)) => (None, status),
                Err(error) => {
                    let status = Status::of(&error);
                    let known = error.downcast::<UserError>().unwrap();
                    let failure = known.message_as::<Failure>().unwrap().clone();
                    (Some((failure, known.hints().to_vec())), status)
                }
            }
        };
        let resume_hint =
            "run `oss-run resume runs/a/b` to continue from the last good checkpoint".to_owned();
        let (killed, wrong) = (failure(2, ExitReason::Signal(9)), failure(1, ExitReason::Status(2)));
        assert_eq!(
            said(Outcome::Failed(killed.clone())),
            (Some((killed, vec![resume_hint])), Status::Failed)
        );
        assert_eq!(said(Outcome::Failed(failure(0, ExitReason::Status(1)))), (None, Status::Failed));
        assert_eq!(said(Outcome::Stopped), (None, Status::Stopped));
        assert_eq!(said(Outcome::Wrong(wrong.clone())), (Some((wrong, Vec::new())), Status::Wrong));
        assert!(ended(Outcome::Done, None).is_ok());
    }
}
