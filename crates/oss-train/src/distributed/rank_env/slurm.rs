//! Ranks started by SLURM, read from its variables.
//!
//! `srun` starts one process per task and gives each its number and their total, but no rendezvous address. We use the
//! step's first machine and a port derived from the job id, so that every task computes the same address without
//! communicating.

use super::{Names, RankEnv, RankEnvError, host, number, port, required};

/// Step ids from here on are not `srun` steps: the batch script, an interactive shell, the prologue.
const FIRST_SPECIAL_STEP: u64 = 0xffff_fff0;

/// First rendezvous port. With [`PORTS`], the range ends below Linux's ephemeral ports (32768 and up), so that a port
/// is rarely in use.
const FIRST_PORT: u64 = 15_000;
/// Number of rendezvous ports.
const PORTS: u64 = 17_000;

/// SLURM's variables with the numbers.
const NAMES: Names = Names {
    rank: "SLURM_PROCID",
    size: "SLURM_STEP_NUM_TASKS",
    local_rank: "SLURM_LOCALID",
    local_size: "SLURM_STEP_TASKS_PER_NODE",
};

/// The environment of a task in a step with several tasks; `None` otherwise. The batch script and a step with one task
/// are not ranks: there the program is a single process, and may launch ranks itself.
///
/// # Errors
/// If a variable is missing or invalid.
pub(super) fn rank_env(env: &dyn Fn(&str) -> Option<String>) -> Result<Option<RankEnv>, RankEnvError> {
    // Steps with names instead of numbers ("batch") are special, too.
    let step = env("SLURM_STEP_ID").and_then(|step| step.trim().parse().ok());
    let Some(step) = step.filter(|step| *step < FIRST_SPECIAL_STEP) else { return Ok(None) };
    let tasks = match number(env, NAMES.size, "a number of tasks")? {
        Some(tasks) => tasks,
        None => number(env, "SLURM_NTASKS", "a number of tasks")?.unwrap_or(1),
    };
    if tasks <= 1 || env(NAMES.rank).is_none() {
        return Ok(None);
    }
    let because = format!("this is a task of SLURM step {step}");
    let job: u64 = required(env, "SLURM_JOB_ID", &because)?;
    let node = number(env, "SLURM_NODEID", "the number of this node")?.unwrap_or(0);
    let rank_env = RankEnv {
        rank: required(env, NAMES.rank, &because)?,
        world_size: tasks,
        local_rank: required(env, NAMES.local_rank, &because)?,
        local_world_size: tasks_of_node(env, node, &because)?,
        host: match host(env)? {
            Some(host) => host,
            None => first_host(env, &because)?,
        },
        port: port(env)?.unwrap_or_else(|| meeting_port(job, step)),
        hosted: false,
        restart: number(env, "SLURM_RESTART_COUNT", "a number of restarts")?.unwrap_or(0),
        id: format!("slurm-{job}.{step}"),
        launched: false,
    };
    rank_env.possible(&NAMES)?;
    Ok(Some(rank_env))
}

/// The rendezvous port: different for steps of one job and for consecutive jobs, since they may share a machine.
fn meeting_port(job: u64, step: u64) -> u16 {
    let spread = job.wrapping_add(step.wrapping_mul(4099)) % PORTS;
    // At most FIRST_PORT + PORTS - 1 = 31999.
    (FIRST_PORT + spread) as u16
}

/// The step's first machine; task 0 runs there unless tasks were placed by hand.
fn first_host(env: &dyn Fn(&str) -> Option<String>, because: &str) -> Result<String, RankEnvError> {
    let found = ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"]
        .into_iter()
        .find_map(|variable| Some((variable, env(variable)?)));
    let Some((variable, list)) = found else {
        let because = because.to_owned();
        return Err(RankEnvError::Missing { variable: "SLURM_STEP_NODELIST", because });
    };
    first_of(list.trim()).ok_or_else(|| RankEnvError::Invalid {
        variable,
        value: list,
        wanted: "a list of nodes such as node[01-04,7],login1, or set MASTER_ADDR".to_owned(),
    })
}

/// The first name in a list such as `node[03-05,9]-ib,x1`: each bracket yields its first number, with leading zeros.
fn first_of(list: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = list;
    while let Some(at) = rest.find(['[', ']', ',']) {
        name.push_str(&rest[..at]);
        let (mark, after) = rest[at..].split_at(1);
        match mark {
            "," => {
                rest = "";
                break;
            }
            "[" => {
                let (numbers, after) = after.split_once(']')?;
                let number = numbers.split([',', '-']).next()?;
                if number.is_empty() || !number.bytes().all(|digit| digit.is_ascii_digit()) {
                    return None;
                }
                name.push_str(number);
                rest = after;
            }
            _ => return None,
        }
    }
    name.push_str(rest);
    (!name.is_empty() && !name.contains(char::is_whitespace)).then_some(name)
}

/// Number of the step's tasks that run on node `node`.
fn tasks_of_node(
    env: &dyn Fn(&str) -> Option<String>,
    node: usize,
    because: &str,
) -> Result<usize, RankEnvError> {
    let variable = NAMES.local_size;
    let Some(value) = env(variable) else {
        return Err(RankEnvError::Missing { variable, because: because.to_owned() });
    };
    nth_count(value.trim(), node).ok_or_else(|| RankEnvError::Invalid {
        variable,
        value,
        wanted: format!("the tasks per node, such as 4(x2),3, including node {node} (SLURM_NODEID)"),
    })
}

/// Entry `at` of a list such as `4(x2),3`, which stands for 4, 4, 3.
fn nth_count(list: &str, at: usize) -> Option<usize> {
    let mut before = 0_usize;
    for entry in list.split(',') {
        let (count, times) = match entry.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (entry, 1),
        };
        let count = count.parse().ok()?;
        before = before.checked_add(times)?;
        if at < before {
            return Some(count);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use oss_config::error::ErrorReport;

    const TASK: [(&str, &str); 8] = [
        ("SLURM_JOB_ID", "4242"),
        ("SLURM_STEP_ID", "1"),
        ("SLURM_STEP_NUM_TASKS", "7"),
        ("SLURM_PROCID", "5"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "1"),
        ("SLURM_STEP_NODELIST", "gpu[07-08]"),
        ("SLURM_STEP_TASKS_PER_NODE", "4,3"),
    ];

    fn of<'a>(more: &[(&'a str, &'a str)], without: &[&str]) -> Result<Option<RankEnv>, RankEnvError> {
        let variables = [TASK.as_slice(), more].concat();
        RankEnv::from_env(&|name| {
            let found = variables.iter().rev().find(|(key, _)| *key == name && !without.contains(key));
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn task() -> RankEnv {
        RankEnv {
            rank: 5,
            world_size: 7,
            local_rank: 1,
            local_world_size: 3,
            host: "gpu07".into(),
            port: meeting_port(4242, 1),
            hosted: false,
            restart: 0,
            id: "slurm-4242.1".into(),
            launched: false,
        }
    }

    #[test]
    fn each_task_of_a_step_is_a_rank() {
        assert_eq!(of(&[], &[]), Ok(Some(task())));
        let by_job = of(
            &[("SLURM_NTASKS", "7"), ("SLURM_JOB_NODELIST", "gpu[07-08]")],
            &["SLURM_STEP_NUM_TASKS", "SLURM_STEP_NODELIST"],
        );
        assert_eq!(by_job, Ok(Some(task())));
    }

    #[test]
    fn an_explicit_rendezvous_address_takes_precedence() {
        let given = of(&[("MASTER_ADDR", "head"), ("MASTER_PORT", "29501")], &[]);
        assert_eq!(given, Ok(Some(RankEnv { host: "head".into(), port: 29501, ..task() })));
        let host_only = of(&[("MASTER_ADDR", "head")], &[]);
        assert_eq!(host_only, Ok(Some(RankEnv { host: "head".into(), ..task() })));
        assert!(matches!(of(&[("RANK", "1")], &[]), Err(RankEnvError::Partial { .. })));
    }

    #[test]
    fn outside_a_step_with_several_tasks_a_process_is_a_single_rank() {
        assert_eq!(of(&[], &["SLURM_STEP_ID"]), Ok(None));
        for batch in ["4294967291", "batch"] {
            assert_eq!(of(&[("SLURM_STEP_ID", batch)], &[]), Ok(None));
        }
        assert_eq!(of(&[("SLURM_STEP_NUM_TASKS", "1")], &[]), Ok(None));
        assert_eq!(of(&[], &["SLURM_PROCID"]), Ok(None));
    }

    #[test]
    fn missing_and_invalid_variables_are_named() {
        insta::assert_snapshot!(ErrorReport::of(of(&[], &["SLURM_LOCALID"]).unwrap_err()), @r"
        SLURM_LOCALID is not set, but this is a task of SLURM step 1
        hint: set it
        ");
        insta::assert_snapshot!(ErrorReport::of(of(&[("SLURM_PROCID", "9")], &[]).unwrap_err()), @r#"
        SLURM_PROCID is "9"
        hint: set it to a rank from 0 to 6, since SLURM_STEP_NUM_TASKS is 7
        "#);
        insta::assert_snapshot!(ErrorReport::of(of(&[("SLURM_NODEID", "2")], &[]).unwrap_err()), @r#"
        SLURM_STEP_TASKS_PER_NODE is "4,3"
        hint: set it to the tasks per node, such as 4(x2),3, including node 2 (SLURM_NODEID)
        "#);
        insta::assert_snapshot!(ErrorReport::of(of(&[("SLURM_STEP_NODELIST", "gpu[")], &[]).unwrap_err()), @r#"
        SLURM_STEP_NODELIST is "gpu["
        hint: set it to a list of nodes such as node[01-04,7],login1, or set MASTER_ADDR
        "#);
    }

    #[test]
    fn finds_the_first_node_of_a_list() {
        for (list, first) in [
            ("node1", "node1"),
            ("node[03-05,9],x1", "node03"),
            ("a[1-2]b", "a1b"),
            ("x1,node[03-05]", "x1"),
            ("rack[2-3]n[08-10].cluster.org,z", "rack2n08.cluster.org"),
            ("[10-12]", "10"),
        ] {
            assert_eq!(first_of(list).as_deref(), Some(first), "{list}");
        }
        for list in ["", ",a", "a[", "a]", "a[]", "a[x-y]", "a[1[2]]"] {
            assert_eq!(first_of(list), None, "{list}");
        }
    }

    #[test]
    fn finds_the_count_of_each_node() {
        let counts: Vec<_> = (0..4).map(|node| nth_count("4(x2),3", node)).collect();
        assert_eq!(counts, [Some(4), Some(4), Some(3), None]);
        for list in ["", "x", "4(x", "4(x2", "4(2)"] {
            assert_eq!(nth_count(list, 0), None, "{list}");
        }
    }

    proptest! {
        #[test]
        fn ports_stay_in_their_range(job: u64, step in 0..FIRST_SPECIAL_STEP) {
            let port = u64::from(meeting_port(job, step));
            prop_assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port));
        }

        #[test]
        fn the_first_name_of_any_list_is_plain(list in r"[a-c0-9,\[\]\-]{0,12}") {
            let first = first_of(&list);
            prop_assert!(first.is_none_or(|name| !name.is_empty() && !name.contains([',', '[', ']'])));
        }

        #[test]
        fn leading_zeros_of_a_range_are_kept(prefix in "[a-z]{1,5}", low in 0u32..1000, more in 1u32..9) {
            let list = format!("{prefix}[{low:04}-{:04}]", low + more);
            prop_assert_eq!(first_of(&list), Some(format!("{prefix}{low:04}")));
        }
    }
}
