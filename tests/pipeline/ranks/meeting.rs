//! Ranks started by another launcher through torchrun's variables, and ranks that do not belong together.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use super::{on, project};
use crate::project::{Ended, Project, json, losses};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A rank as torchrun would start it, without an agent's store.
fn rank(project: &Project, arguments: &str, (rank, ranks): (usize, usize), port: u16) -> Command {
    let mut command = project.command(arguments);
    command
        .env("RANK", rank.to_string())
        .env("LOCAL_RANK", rank.to_string())
        .env("WORLD_SIZE", ranks.to_string())
        .env("LOCAL_WORLD_SIZE", ranks.to_string())
        .env("MASTER_ADDR", "127.0.0.1")
        .env("MASTER_PORT", port.to_string());
    command
}

fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let status = output.status.code().unwrap_or(-1);
    Ended { status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Waits for every rank to end.
fn together(commands: Vec<Command>) -> Vec<Ended> {
    let ranks: Vec<Child> = commands.into_iter().map(start).collect();
    ranks.into_iter().map(end).collect()
}

#[test]
fn ranks_started_by_torchrun_match_launched_ones() {
    let options = format!("tiny.toml {}", on("fsdp", 2));
    let launched = project(&[]);
    launched.oss_run(&options).ends_with(0);
    let joined = project(&[]);
    let port = free_port();
    let ends = together((0..2).map(|n| rank(&joined, &format!("{options} --json"), (n, 2), port)).collect());
    for (number, ended) in ends.into_iter().enumerate() {
        let ended = ended.ends_with(0);
        // Only one rank prints.
        assert_eq!(ended.stdout.is_empty(), number != 0, "{}", ended.stdout);
    }
    assert_eq!(losses(&launched.the_run()), losses(&joined.the_run()));
}

#[test]
fn ranks_started_by_slurm_form_one_run() {
    let project = project(&[]);
    let port = free_port();
    let commands = (0..2).map(|number| {
        let mut command = project.command(&format!("tiny.toml --until train --json {}", on("ddp", 2)));
        let number = number.to_string();
        let variables = [
            ("SLURM_JOB_ID", "71"),
            ("SLURM_STEP_ID", "0"),
            ("SLURM_STEP_NUM_TASKS", "2"),
            ("SLURM_NTASKS", "2"),
            ("SLURM_PROCID", &number),
            ("SLURM_LOCALID", &number),
            ("SLURM_STEP_TASKS_PER_NODE", "2"),
            ("SLURM_STEP_NODELIST", "localhost"),
            ("MASTER_ADDR", "127.0.0.1"),
            ("MASTER_PORT", &port.to_string()),
        ];
        command.envs(variables);
        command
    });
    for (number, ended) in together(commands.collect()).into_iter().enumerate() {
        // With two launchers, both would print.
        assert_eq!(ended.ends_with(0).stdout.is_empty(), number != 0);
    }
    let manifest = json(&project.the_run().join("manifest.json"));
    assert_eq!(manifest["segments"].as_array().unwrap().len(), 1);
}

#[test]
fn inconsistent_settings_are_rejected_immediately() {
    let project = project(&[]);
    let mut partial = project.command("tiny.toml");
    let ended = Ended::of(partial.env("RANK", "0").env("WORLD_SIZE", "2")).ends_with(2);
    for name in ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"] {
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
    let options = format!("tiny.toml {}", on("fsdp", 3));
    let ended = Ended::of(&mut rank(&project, &options, (0, 2), free_port())).ends_with(2);
    assert!(ended.stderr.contains("pass --set sharding.ranks=2"), "{}", ended.stderr);
    let ended = project.oss_run(&format!("tiny.toml {}", on("fsdp", 5))).ends_with(2);
    assert!(ended.stderr.contains("set train.global_batch_size to a multiple of 5"), "{}", ended.stderr);
}

#[test]
fn connection_failures_are_reported() {
    let project = project(&["sharding.timeout_seconds = 2"]);
    let options = format!("tiny.toml {}", on("fsdp", 2));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ended = Ended::of(&mut rank(&project, &options, (0, 2), port)).ends_with(1);
    assert!(ended.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", ended.stderr);
    assert!(ended.stderr.contains("set MASTER_PORT to a free port"), "{}", ended.stderr);
    // The system accepts connections to `taken`, and nothing ever answers; a free port refuses them.
    for port in [port, free_port()] {
        let ended = Ended::of(&mut rank(&project, &options, (1, 2), port)).ends_with(1);
        assert!(ended.stderr.contains(&format!("could not connect to 127.0.0.1:{port}")), "{}", ended.stderr);
    }
    let ended = Ended::of(&mut rank(&project, &options, (0, 2), free_port())).ends_with(1);
    assert!(ended.stderr.contains("timed out after 2 s waiting for rank 1"), "{}", ended.stderr);
}

#[test]
fn ranks_with_different_experiments_are_rejected() {
    let project = project(&[]);
    let port = free_port();
    let options = format!("tiny.toml {}", on("fsdp", 2));
    let other = format!("{options} --set optimizer.lr=1e-3");
    let ends = together(vec![rank(&project, &options, (0, 2), port), rank(&project, &other, (1, 2), port)]);
    for ended in ends {
        let ended = ended.ends_with(1);
        assert!(ended.stderr.contains("rank 1 (pid "), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("has a different experiment or command line than rank 0"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn two_runs_at_one_address_do_not_mix() {
    let project = project(&[]);
    let port = free_port();
    let options = format!("tiny.toml {}", on("fsdp", 2));
    let of_launch = |number: usize, launch: &str| {
        let mut command = rank(&project, &options, (number, 2), port);
        command.env("TORCHELASTIC_RUN_ID", launch);
        command
    };
    let ends = together(vec![of_launch(0, "first"), of_launch(1, "second")]);
    for ended in ends {
        let ended = ended.ends_with(1);
        assert!(ended.stderr.contains("two runs use the same address"), "{}", ended.stderr);
    }
    let twice = together(vec![of_launch(0, "first"), of_launch(1, "first"), of_launch(1, "first")]);
    let complaints =
        twice.iter().filter(|ended| ended.stderr.contains("two processes claim to be rank 1")).count();
    assert!(complaints >= 1, "{twice:?}");
}
