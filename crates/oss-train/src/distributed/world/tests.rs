use anyhow::anyhow;

use super::*;
use oss_config::error::{ErrorReport, Hint};

fn fingerprint(task: &str) -> Fingerprint {
    Fingerprint { program: "p".into(), task: task.into() }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A rank of `size` on this machine; rank 0 hosts the store at `port`.
fn rank_env(rank: usize, size: usize, port: u16) -> RankEnv {
    RankEnv {
        rank,
        world_size: size,
        local_rank: rank,
        local_world_size: size,
        host: "127.0.0.1".into(),
        port,
        hosted: false,
        restart: 0,
        id: "test".into(),
        launched: false,
    }
}

/// Runs `member` for each rank of a world, on threads; `task` gives each rank's task fingerprint.
fn world<T: Send + 'static>(
    size: usize,
    seconds: u64,
    task: impl Fn(usize) -> &'static str + Send + Copy + 'static,
    member: impl Fn(Result<World>) -> T + Send + Copy + 'static,
) -> Vec<T> {
    let port = free_port();
    let join = move |rank| {
        World::join(&rank_env(rank, size, port), &fingerprint(task(rank)), Duration::from_secs(seconds))
    };
    let ranks: Vec<_> = (0..size).map(|rank| thread::spawn(move || member(join(rank)))).collect();
    ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
}

#[test]
fn messages_reach_their_recipients() {
    let seen = world(
        3,
        20,
        |_| "same",
        |world| {
            let world = world.unwrap();
            let mut heard = Vec::new();
            for round in 0..5 {
                let told = world.broadcast(world.is_leader().then(|| format!("round {round}"))).unwrap();
                let gathered = world.gather(&(world.rank() * 10 + round)).unwrap();
                assert_eq!(gathered.is_some(), world.is_leader());
                let all = world.all(&(world.rank() + round)).unwrap();
                heard.push((told, all));
            }
            world.leave();
            heard
        },
    );
    for heard in seen {
        for (round, (told, all)) in heard.into_iter().enumerate() {
            assert_eq!((told, all), (format!("round {round}"), vec![round, round + 1, round + 2]));
        }
    }
}

#[test]
fn the_failure_of_one_rank_is_reported_on_all() {
    let errors = world(
        3,
        20,
        |_| "same",
        |world| {
            let world = world.unwrap();
            assert_eq!(world.all_ok(Ok(world.rank())).unwrap(), world.rank());
            let mine = if world.rank() == 1 { Err(anyhow!("no room").hint("free some")) } else { Ok(()) };
            let error = ErrorReport::of(world.all_ok(mine).unwrap_err());
            world.leave();
            assert_eq!(error.hints, ["free some"], "hints are sent with their error");
            error.summary()
        },
    );
    assert_eq!(errors, ["rank 1 failed: no room", "no room", "rank 1 failed: no room"]);
}

#[test]
fn ranks_do_not_wait_for_one_that_gave_up() {
    let errors = world(
        2,
        60,
        |_| "same",
        |world| {
            let world = world.unwrap();
            if world.is_leader() {
                world.report_failure(&anyhow!("no text"));
                world.leave();
                return String::new();
            }
            let error = ErrorReport::of(world.broadcast::<u32>(None).unwrap_err()).summary();
            world.leave();
            error
        },
    );
    assert_eq!(errors[1], "rank 0 failed: no text");
}

#[test]
fn different_and_missing_ranks_are_named() {
    let errors = world(
        3,
        20,
        |rank| if rank == 2 { "other" } else { "same" },
        |world| format!("{:#}", world.unwrap_err()),
    );
    assert!(errors.iter().all(|error| error.starts_with("rank 2 (pid ")), "{errors:?}");
    let alone =
        World::join(&rank_env(0, 3, free_port()), &fingerprint("same"), Duration::from_secs(1)).unwrap_err();
    insta::assert_snapshot!(ErrorReport::of(alone), @r"
    rank 0 timed out after 1 s waiting for ranks 1, 2
    hint: check the logs of the missing ranks, or raise sharding.timeout_seconds
    ");
}
