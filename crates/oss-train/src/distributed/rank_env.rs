//! A rank's environment: its number, the number of ranks, and their rendezvous address.
//!
//! It comes from torchrun's variables, whether set by torchrun, by this program's own launcher, or by hand. Inside a
//! SLURM step it is derived from SLURM's variables. Without either the process runs as a single rank.

mod slurm;

use std::fmt::Display;
use std::net::IpAddr;
use std::str::FromStr;

use crate::distributed::launch::is_launched;
use oss_config::error::{UserError, user_errors};

/// A rank's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankEnv {
    /// This rank, in `0..world_size`.
    pub rank: usize,
    /// Number of ranks.
    pub world_size: usize,
    /// This rank among those on its machine, in `0..local_world_size`.
    pub local_rank: usize,
    /// Number of ranks on this machine.
    pub local_world_size: usize,
    /// The host of the rendezvous.
    pub host: String,
    /// The port of the store on that host.
    pub port: u16,
    /// Whether another process (torchrun's agent or our launcher) hosts the store, so that every rank is a client.
    pub hosted: bool,
    /// How often the group has been restarted; keys of earlier groups are ignored.
    pub restart: u64,
    /// Id of the launch: torchrun's run id, SLURM's job and step, or else the rendezvous address.
    pub id: String,
    /// Whether this program's own launcher started the rank.
    pub launched: bool,
}

/// Environment variables that do not define a rank's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RankEnvError {
    /// Only some of the variables are set.
    Partial {
        /// Those that are set.
        set: Vec<&'static str>,
        /// Those that are missing.
        missing: Vec<&'static str>,
    },
    /// A variable that is required by those that are set.
    Missing {
        /// The variable.
        variable: &'static str,
        /// Why it is needed.
        because: String,
    },
    /// An invalid value.
    Invalid {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is valid.
        wanted: String,
    },
}

impl From<RankEnvError> for UserError {
    fn from(error: RankEnvError) -> Self {
        match error {
            RankEnvError::Partial { set, missing } => {
                Self::wrong(format!("{} set, but {} not", are(&set), are(&missing))).hint(format!(
                    "set the missing variables, or unset {} to run a single rank",
                    if set.len() == 1 { "it" } else { "them all" }
                ))
            }
            RankEnvError::Missing { variable, because } => {
                Self::wrong(format!("{variable} is not set, but {because}")).hint("set it")
            }
            RankEnvError::Invalid { variable, value, wanted } => {
                Self::wrong(format!("{variable} is {value:?}")).hint(format!("set it to {wanted}"))
            }
        }
    }
}

user_errors!(RankEnvError);

/// `RANK and WORLD_SIZE are`.
fn are(variables: &[&str]) -> String {
    match variables {
        [one] => format!("{one} is"),
        [first @ .., last] => format!("{} and {last} are", first.join(", ")),
        [] => "none is".to_owned(),
    }
}

/// Either all of these must be set, or none.
const REQUIRED: [&str; 5] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];

impl RankEnv {
    /// Reads the environment variables; returns `None` for a single process.
    ///
    /// - `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT` must be set together. `LOCAL_WORLD_SIZE`
    ///   may be omitted if `MASTER_ADDR` is a loopback address, since then all ranks are on one machine, or if
    ///   `LOCAL_RANK` is 0, which then counts as the machine's only rank.
    /// - In a SLURM step with several tasks, SLURM's variables are used; `MASTER_ADDR` and `MASTER_PORT` override the
    ///   rendezvous address derived from the job.
    ///
    /// # Errors
    /// If only some of the variables are set, or a value is invalid.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, RankEnvError> {
        let (set, missing): (Vec<_>, Vec<_>) =
            REQUIRED.into_iter().partition(|variable| env(variable).is_some());
        let says_no_rank = set.iter().all(|variable| variable.starts_with("MASTER"));
        if says_no_rank && let Some(rank_env) = slurm::rank_env(env)? {
            return Ok(Some(rank_env));
        }
        if set.is_empty() {
            return Ok(None);
        }
        if !missing.is_empty() {
            return Err(RankEnvError::Partial { set, missing });
        }
        let (host, port) = (host(env)?.unwrap_or_default(), port(env)?.unwrap_or_default());
        let world_size = required(env, "WORLD_SIZE", "RANK is")?;
        let local_rank = required(env, "LOCAL_RANK", "RANK is")?;
        let rank_env = Self {
            rank: required(env, "RANK", "WORLD_SIZE is")?,
            world_size,
            local_rank,
            local_world_size: match number(env, "LOCAL_WORLD_SIZE", "a number of ranks")? {
                Some(size) => size,
                None if is_loopback(&host) => world_size,
                None if local_rank == 0 => 1,
                None => {
                    let because = format!("LOCAL_RANK is {local_rank} and the ranks meet on {host}");
                    return Err(RankEnvError::Missing { variable: "LOCAL_WORLD_SIZE", because });
                }
            },
            hosted: flag(env, "TORCHELASTIC_USE_AGENT_STORE")?,
            restart: number(env, "TORCHELASTIC_RESTART_COUNT", "a number of restarts")?.unwrap_or(0),
            id: env("TORCHELASTIC_RUN_ID").unwrap_or_else(|| format!("{host}:{port}")),
            launched: is_launched(env),
            host,
            port,
        };
        let names = Names {
            rank: "RANK",
            size: "WORLD_SIZE",
            local_rank: "LOCAL_RANK",
            local_size: "LOCAL_WORLD_SIZE",
        };
        rank_env.possible(&names)?;
        Ok(Some(rank_env))
    }

    /// Checks that the numbers are consistent.
    pub(super) fn possible(&self, names: &Names) -> Result<(), RankEnvError> {
        let invalid = |variable, value: usize, wanted: String| {
            Err(RankEnvError::Invalid { variable, value: value.to_string(), wanted })
        };
        let (rank, size) = (self.rank, self.world_size);
        if size == 0 {
            return invalid(names.size, size, "the number of ranks, at least 1".to_owned());
        }
        if rank >= size {
            let wanted = format!("a rank from 0 to {}, since {} is {size}", size - 1, names.size);
            return invalid(names.rank, rank, wanted);
        }
        let (rank, local) = (self.local_rank, self.local_world_size);
        if local == 0 || local > size {
            return invalid(
                names.local_size,
                local,
                format!("a number from 1 to {size}, the value of {}", names.size),
            );
        }
        if rank >= local {
            let wanted = format!("a rank from 0 to {}, since this machine has {local}", local - 1);
            return invalid(names.local_rank, rank, wanted);
        }
        Ok(())
    }
}

/// Names of the variables with the numbers.
pub(super) struct Names {
    pub rank: &'static str,
    pub size: &'static str,
    pub local_rank: &'static str,
    pub local_size: &'static str,
}

/// `MASTER_ADDR`, if set.
pub(super) fn host(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, RankEnvError> {
    let Some(value) = env("MASTER_ADDR") else { return Ok(None) };
    let host = value.trim();
    if host.is_empty() || host.contains(char::is_whitespace) {
        let wanted = "the name or address of rank 0's machine".to_owned();
        return Err(RankEnvError::Invalid { variable: "MASTER_ADDR", value, wanted });
    }
    Ok(Some(host.to_owned()))
}

/// `MASTER_PORT`, if set.
pub(super) fn port(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<u16>, RankEnvError> {
    let wanted = "a port from 1 to 65535";
    match number(env, "MASTER_PORT", wanted)? {
        Some(0) => Err(RankEnvError::Invalid {
            variable: "MASTER_PORT",
            value: "0".to_owned(),
            wanted: wanted.to_owned(),
        }),
        port => Ok(port),
    }
}

/// Parses a variable as a number, if it is set.
pub(super) fn number<T: FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    variable: &'static str,
    wanted: &str,
) -> Result<Option<T>, RankEnvError> {
    let Some(value) = env(variable) else { return Ok(None) };
    match value.trim().parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(RankEnvError::Invalid { variable, value, wanted: wanted.to_owned() }),
    }
}

/// Parses a required variable as a number; `because` says why it is required.
pub(super) fn required<T: FromStr>(
    env: &dyn Fn(&str) -> Option<String>,
    variable: &'static str,
    because: impl Display,
) -> Result<T, RankEnvError> {
    number(env, variable, "a non-negative integer")?
        .ok_or_else(|| RankEnvError::Missing { variable, because: because.to_string() })
}

/// PyTorch writes booleans as Python does.
fn flag(env: &dyn Fn(&str) -> Option<String>, variable: &'static str) -> Result<bool, RankEnvError> {
    let Some(value) = env(variable) else { return Ok(false) };
    match value.trim() {
        "True" | "true" | "1" => Ok(true),
        "False" | "false" | "0" | "" => Ok(false),
        _ => Err(RankEnvError::Invalid { variable, value, wanted: "True or False".to_owned() }),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distributed::launch::LAUNCHED;
    use oss_config::error::ErrorReport;

    fn of(variables: &[(&str, &str)]) -> Result<Option<RankEnv>, RankEnvError> {
        RankEnv::from_env(&|name| {
            variables.iter().rev().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const TORCHRUN: [(&str, &str); 6] = [
        ("RANK", "5"),
        ("WORLD_SIZE", "8"),
        ("LOCAL_RANK", "1"),
        ("LOCAL_WORLD_SIZE", "4"),
        ("MASTER_ADDR", "node1"),
        ("MASTER_PORT", "29500"),
    ];

    fn torchrun<'a>(more: &[(&'a str, &'a str)]) -> Result<Option<RankEnv>, RankEnvError> {
        of(&[TORCHRUN.as_slice(), more].concat())
    }

    #[test]
    fn a_process_without_variables_is_a_single_rank() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("LOCAL_WORLD_SIZE", "4"), (LAUNCHED, "1")]), Ok(None));
    }

    #[test]
    fn reads_the_variables_of_torchrun() {
        let rank_env = torchrun(&[
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
            ("TORCHELASTIC_RUN_ID", "abc"),
        ]);
        let expected = RankEnv {
            rank: 5,
            world_size: 8,
            local_rank: 1,
            local_world_size: 4,
            host: "node1".into(),
            port: 29500,
            hosted: true,
            restart: 2,
            id: "abc".into(),
            launched: false,
        };
        assert_eq!(rank_env, Ok(Some(expected.clone())));
        let bare =
            RankEnv { hosted: false, restart: 0, id: "node1:29500".into(), launched: true, ..expected };
        assert_eq!(torchrun(&[(LAUNCHED, "1"), ("TORCHELASTIC_USE_AGENT_STORE", "False")]), Ok(Some(bare)));
    }

    #[test]
    fn local_world_size_may_be_omitted_if_it_is_implied() {
        let mut variables: Vec<_> =
            TORCHRUN.into_iter().filter(|(name, _)| *name != "LOCAL_WORLD_SIZE").collect();
        insta::assert_snapshot!(ErrorReport::of(of(&variables).unwrap_err()), @r"
        LOCAL_WORLD_SIZE is not set, but LOCAL_RANK is 1 and the ranks meet on node1
        hint: set it
        ");
        variables.push(("LOCAL_RANK", "0"));
        assert_eq!(of(&variables).unwrap().unwrap().local_world_size, 1);
        for loopback in ["localhost", "127.0.0.1", "::1"] {
            variables.push(("MASTER_ADDR", loopback));
            assert_eq!(of(&variables).unwrap().unwrap().local_world_size, 8);
        }
    }

    #[test]
    fn a_partial_set_lists_set_and_missing_variables() {
        let error = of(&[("RANK", "0"), ("WORLD_SIZE", "2")]).unwrap_err();
        insta::assert_snapshot!(ErrorReport::of(error), @r"
        RANK and WORLD_SIZE are set, but LOCAL_RANK, MASTER_ADDR and MASTER_PORT are not
        hint: set the missing variables, or unset them all to run a single rank
        ");
        let error = of(&[("MASTER_ADDR", "a")]).unwrap_err();
        insta::assert_snapshot!(ErrorReport::of(error), @r"
        MASTER_ADDR is set, but RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT are not
        hint: set the missing variables, or unset it to run a single rank
        ");
    }

    #[test]
    fn invalid_values_are_reported_with_their_variable() {
        for (variable, value, wanted) in [
            ("RANK", "8", "a rank from 0 to 7, since WORLD_SIZE is 8"),
            ("RANK", "-1", "a non-negative integer"),
            ("WORLD_SIZE", "two", "a non-negative integer"),
            ("WORLD_SIZE", "0", "the number of ranks, at least 1"),
            ("LOCAL_RANK", "4", "a rank from 0 to 3, since this machine has 4"),
            ("LOCAL_WORLD_SIZE", "9", "a number from 1 to 8, the value of WORLD_SIZE"),
            ("MASTER_PORT", "0", "a port from 1 to 65535"),
            ("MASTER_PORT", "65536", "a port from 1 to 65535"),
            ("MASTER_ADDR", "", "the name or address of rank 0's machine"),
            ("TORCHELASTIC_USE_AGENT_STORE", "perhaps", "True or False"),
            ("TORCHELASTIC_RESTART_COUNT", "often", "a number of restarts"),
        ] {
            let expected =
                RankEnvError::Invalid { variable, value: value.to_owned(), wanted: wanted.to_owned() };
            assert_eq!(torchrun(&[(variable, value)]), Err(expected), "{variable}={value}");
        }
        insta::assert_snapshot!(ErrorReport::of(torchrun(&[("RANK", "8")]).unwrap_err()), @r#"
        RANK is "8"
        hint: set it to a rank from 0 to 7, since WORLD_SIZE is 8
        "#);
    }

    proptest! {
        #[test]
        fn only_consistent_numbers_are_accepted(numbers in proptest::array::uniform4(0usize..6)) {
            let [rank, size, local_rank, local_size] = numbers.map(|number| number.to_string());
            let rank_env = torchrun(&[
                ("RANK", rank.as_str()),
                ("WORLD_SIZE", size.as_str()),
                ("LOCAL_RANK", local_rank.as_str()),
                ("LOCAL_WORLD_SIZE", local_size.as_str()),
            ]);
            let [rank, size, local_rank, local_size] = numbers;
            let fits = rank < size && local_rank < local_size && local_size <= size;
            prop_assert_eq!(rank_env.is_ok(), fits);
        }

        #[test]
        fn any_partial_set_is_refused(mask in 1u8..31) {
            let chosen: Vec<_> = REQUIRED
                .iter()
                .enumerate()
                .filter(|(at, _)| mask & (1 << at) != 0)
                .map(|(_, name)| (*name, "1"))
                .collect();
            let Err(RankEnvError::Partial { set, missing }) = of(&chosen) else {
                return Err(TestCaseError::fail("accepted"));
            };
            prop_assert_eq!(set.len(), chosen.len());
            prop_assert_eq!(set.len() + missing.len(), REQUIRED.len());
        }
    }
}
