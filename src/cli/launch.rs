//! The launcher: starts the ranks of a command on this machine, watches over them, and starts them again when one died.

use std::env;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context, Result};

use super::failure::Told;
use crate::runner::RUN;
use oss_config::Experiment;
use oss_config::error::{Hint, Status, UserError};
use oss_runs::interrupt;
use oss_torch::Store;
use oss_train::distributed::{Failure, Launch, Outcome, Patience, supervise};

/// The arguments that this process was given.
pub fn own_arguments() -> Vec<OsString> {
    env::args_os().skip(1).collect()
}

/// Starts this program once for each rank of `experiment`, with this process's arguments, and waits for them all.
///
/// After a rank has failed all are started again, as often as `sharding.max_restarts` says; if rank 0 had told by then
/// in which run directory it works, with the arguments that `resumed` makes of it.
///
/// # Errors
/// How the ranks failed; the store cannot be served, or a process not be started.
pub fn launch(experiment: &Experiment, resumed: impl Fn(&Path) -> Vec<OsString>) -> Result<()> {
    let sharding = &experiment.sharding;
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on 127.0.0.1")?;
    let port = listener.local_addr().context("the ranks' store has no address")?.port();
    let store = Store::serve(listener, Duration::from_secs(sharding.timeout_seconds))?;
    let program = env::current_exe().context("this program cannot find its own file")?;
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
        if let Some(told) = told_run(&store, &launch)? {
            arguments = resumed(&told);
            run = Some(told);
        }
        Ok(outcome)
    })?;
    ended(outcome, run.as_deref())
}

/// One start of all ranks, until they have ended.
fn start(program: &Path, arguments: &[OsString], launch: &Launch) -> Result<Outcome> {
    let commands = (0..launch.ranks).map(|rank| {
        let mut command = Command::new(program);
        command.args(arguments).envs(launch.environment(rank));
        command
    });
    supervise(commands.collect(), Patience::default(), interrupt::requested)
        .context("cannot start the ranks")
        .hint("set sharding.ranks to fewer if this machine has no room for more")
}

/// Makes attempts until one ends otherwise than by a failure, or `most` restarts have failed, too.
fn restarting(most: u64, mut attempt: impl FnMut(u64) -> Result<Outcome>) -> Result<Outcome> {
    let mut restart = 0;
    loop {
        match attempt(restart)? {
            Outcome::Failed(failure) if restart < most && !interrupt::requested() => {
                restart += 1;
                tracing::warn!("{failure}\nstarting all ranks again ({restart} of at most {most} times)");
            }
            outcome => return Ok(outcome),
        }
    }
}

/// The run directory that rank 0 works in, if it came so far.
fn told_run(store: &Store, launch: &Launch) -> Result<Option<PathBuf>> {
    let told = store.get(&format!("{}/{RUN}", launch.prefix()))?;
    Ok(told.map(|bytes| PathBuf::from(String::from_utf8_lossy(&bytes).into_owned())))
}

/// What the command comes to.
fn ended(outcome: Outcome, run: Option<&Path>) -> Result<()> {
    Err(match outcome {
        Outcome::Done => return Ok(()),
        Outcome::Stopped => Told(Status::Stopped).into(),
        Outcome::Wrong(failure) if is_told(&failure) => Told(Status::Wrong).into(),
        Outcome::Failed(failure) if is_told(&failure) => Told(Status::Failed).into(),
        Outcome::Wrong(failure) => UserError::wrong(failure).into(),
        Outcome::Failed(failure) => {
            let error = UserError::failed(failure);
            let go_on = |run: &Path| {
                format!("`oss-run resume {}` goes on from the last good checkpoint", run.display())
            };
            match run {
                Some(run) => error.hint(go_on(run)).into(),
                None => error.into(),
            }
        }
    })
}

/// Whether rank 0 has told it itself.
fn is_told(failure: &Failure) -> bool {
    failure.rank == 0 && matches!(failure.how.status(), Some(Status::Failed | Status::Wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oss_train::distributed::How;

    fn failure(rank: usize, how: How) -> Failure {
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
    fn only_a_failure_starts_again_and_not_for_ever() {
        let failed = || Outcome::Failed(failure(1, How::Signal(9)));
        let wrong = || Outcome::Wrong(failure(1, How::Status(2)));
        assert_eq!(attempts(0, &[failed()]), (failed(), 1));
        assert_eq!(attempts(2, &[failed(), Outcome::Done]), (Outcome::Done, 2));
        assert_eq!(attempts(2, &[failed(), failed(), failed()]), (failed(), 3));
        assert_eq!(attempts(2, &[Outcome::Stopped]), (Outcome::Stopped, 1));
        assert_eq!(attempts(2, &[wrong()]), (wrong(), 1));
    }

    #[test]
    fn what_rank_0_has_said_is_not_said_again() {
        let said = |outcome| {
            let error = ended(outcome, Some(Path::new("runs/a/b"))).unwrap_err();
            match error.downcast::<Told>() {
                Ok(Told(status)) => (None, status),
                Err(error) => {
                    let status = Status::of(&error);
                    let known = error.downcast::<UserError>().unwrap();
                    let failure = known.message_as::<Failure>().unwrap().clone();
                    (Some((failure, known.hints().to_vec())), status)
                }
            }
        };
        let go_on = "`oss-run resume runs/a/b` goes on from the last good checkpoint".to_owned();
        let (killed, wrong) = (failure(2, How::Signal(9)), failure(1, How::Status(2)));
        assert_eq!(said(Outcome::Failed(killed.clone())), (Some((killed, vec![go_on])), Status::Failed));
        assert_eq!(said(Outcome::Failed(failure(0, How::Status(1)))), (None, Status::Failed));
        assert_eq!(said(Outcome::Stopped), (None, Status::Stopped));
        assert_eq!(said(Outcome::Wrong(wrong.clone())), (Some((wrong, Vec::new())), Status::Wrong));
        assert!(ended(Outcome::Done, None).is_ok());
    }
}
