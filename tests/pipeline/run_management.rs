//! `ls`, `show`, `diff` and `label`: how runs are displayed and annotated.

use std::fs;

use serde_json::{Value, json as value};

use crate::project::{Ended, Project, json, losses};

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

/// The ids that `ls` prints, in order.
fn ids(project: &Project, arguments: &str) -> Vec<String> {
    let listed = document(&project.oss_run(&format!("ls --json {arguments}")).ends_with(0));
    let runs = listed["runs"].as_array().unwrap();
    runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

/// Id of the run that was started last.
fn last(project: &Project) -> String {
    ids(project, "").pop().unwrap()
}

#[test]
fn runs_are_listed_with_their_state() {
    let project = Project::new();
    assert!(project.oss_run("ls").ends_with(0).stdout.is_empty());
    project.oss_run("tiny.toml --until train").ends_with(0);
    let done = last(&project);
    project.oss_run("tiny.toml --set optimizer.lr=0.01 --stop-at-step 3").ends_with(75);
    let stopped = last(&project);
    project.oss_run("tiny.toml --set optimizer.lr=0.02 --until prepare").ends_with(0);
    let untrained = last(&project);
    project.oss_run("tiny.toml --set optimizer.lr=0.03 --until train").ends_with(0);
    let damaged = last(&project);
    fs::write(project.path("runs/tiny").join(&damaged).join("manifest.json"), "{").unwrap();

    assert_eq!(ids(&project, "--state done"), [done.as_str()]);
    assert_eq!(ids(&project, "--state stopped --state untrained"), [stopped.as_str(), untrained.as_str()]);
    assert_eq!(ids(&project, "--state damaged"), [damaged.as_str()]);
    assert_eq!(ids(&project, "--where optimizer.lr=1e-2"), [stopped.as_str()]);
    assert_eq!(
        ids(&project, "--where optimizer.lr<1 --sort -optimizer.lr --where step>0"),
        [stopped.as_str(), done.as_str()]
    );
    assert_eq!(
        ids(&project, "t*y --where step=6 --columns id,optimizer.lr"),
        [done.as_str(), damaged.as_str()]
    );
    assert!(ids(&project, "big*").is_empty());

    let run = &document(&project.oss_run(&format!("ls {done} --json")).ends_with(0))["runs"][0];
    let measured = losses(&project.path("runs/tiny").join(&done));
    assert_eq!(run["loss"], measured.last().unwrap().1);
    assert!(run["val_loss"].is_number() && run["duration"].as_f64().unwrap() > 0.0);
    assert_eq!((&run["state"], &run["step"], &run["steps"]), (&value!("done"), &value!(6), &value!(6)));

    let table = project.oss_run("ls").ends_with(0);
    assert!(table.stderr.contains(&format!("{damaged}/manifest.json is damaged")), "{}", table.stderr);
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("id") && lines[0].trim_end().ends_with("labels"), "{}", lines[0]);
    let stopped = lines.iter().find(|line| line.starts_with(&stopped)).unwrap();
    assert!(stopped.contains("stopped") && stopped.contains("3/6"), "{stopped}");

    for (arguments, words) in [
        ("--sort val_los", "no column val_los\nhint: did you mean val_loss?"),
        ("--columns optimizer.rl", "did you mean optimizer.lr?"),
        ("--where grad_nrom<1", "did you mean grad_norm?"),
        ("--where lr", "write KEY=VALUE"),
    ] {
        let refused = project.oss_run(&format!("ls {arguments}")).ends_with(2);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn the_listed_validation_loss_is_that_of_the_final_weights() {
    let project = Project::with(&["evaluate.every_steps = 4"]);
    let listed = || {
        let ended = project.oss_run("ls --json").ends_with(0);
        let listed: Value = serde_json::from_str(&ended.stdout).unwrap();
        listed["runs"][0]["val_loss"].as_f64().unwrap()
    };
    project.oss_run("tiny.toml --until train").ends_with(0);
    let in_training = listed();
    project.oss_run("tiny.toml").ends_with(0);
    let final_loss = listed();
    assert_eq!(json(&project.the_run().join("evaluation.json"))["loss"], final_loss);
    assert_ne!(in_training, final_loss, "step 4 of 6");
    // Trained on, and not evaluated since: the newest is that of step 8.
    project.oss_run("tiny.toml --set train.steps=9 --until train").ends_with(0);
    assert_ne!(listed(), final_loss);
}

#[test]
fn runs_are_listed_as_csv() {
    let project = Project::with(&["run.labels = { note = 'a, b \"c\"' }", "run.notes = \"two\\nlines\""]);
    project.oss_run("tiny.toml --until train").ends_with(0);
    let id = last(&project);
    let csv =
        project.oss_run("ls --csv --columns id,state,labels,notes,optimizer.betas,schedule.decay_steps");
    let expected = "id,state,labels,notes,optimizer.betas,schedule.decay_steps\n\
                    ID,done,\"note=a, b \"\"c\"\"\",\"two\nlines\",\"[0.9,0.95]\",\n";
    assert_eq!(csv.ends_with(0).stdout, expected.replace("ID", &id));
    let all = project.oss_run("ls --csv").ends_with(0).stdout;
    assert!(all.starts_with("id,name,state,step,val_loss,loss,started,duration,labels\n"), "{all}");
    assert_eq!(project.oss_run("ls none* --csv").ends_with(0).stdout.lines().count(), 1, "the header");
    project.oss_run("ls --csv --json").ends_with(2);
}

#[test]
fn every_command_takes_a_run_by_name_and_id() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let id = last(&project);
    for run in [format!("tiny/{id}"), format!("tiny/{}", &id[..4]), format!("runs/tiny/{id}")] {
        for arguments in [
            "show RUN --json",
            "label RUN",
            "evaluate RUN --json",
            "sample RUN --prompt A --max-new-tokens 1 --json",
            "export RUN --json",
            "resume RUN --json",
            "reproduce RUN --steps 1",
            "report RUN",
            "batches RUN --steps 0..1",
            "logits RUN --prompt A",
        ] {
            project.oss_run(&arguments.replace("RUN", &run)).ends_with(0);
        }
    }
    let missing = project.oss_run("show tiny/zzzz").ends_with(2).stderr;
    assert!(missing.contains("tiny/zzzz is not a run directory"), "{missing}");
    project.oss_run(&format!("rm tiny/{} --yes", &id[..4])).ends_with(0);
    assert!(ids(&project, "").is_empty());
}

#[test]
fn patterns_name_several_runs() {
    let project = Project::new();
    for lr in ["0.01", "0.02", "0.03"] {
        project.oss_run(&format!("tiny.toml --until prepare --set optimizer.lr={lr}")).ends_with(0);
    }
    let all = ids(&project, "");
    project.oss_run("report tiny/* --out all.html").ends_with(0);
    let page = fs::read_to_string(project.path("all.html")).unwrap();
    assert!(all.iter().all(|id| page.contains(id)), "{all:?}");
    let three = project.oss_run("diff tiny/*").ends_with(2).stderr;
    let runs: Vec<String> = all.iter().map(|id| format!("tiny/{id}")).collect();
    assert!(three.contains(&format!("diff compares two runs, not 3: {}", runs.join(", "))), "{three}");
    project.oss_run(&format!("rm {} --yes", all[0])).ends_with(0);
    let found = document(&project.oss_run("diff tiny/* --json").ends_with(0));
    let compared = [&found["left"], &found["right"]].map(|path| path.as_str().unwrap().to_owned());
    assert_eq!(compared, [format!("runs/{}", runs[1]), format!("runs/{}", runs[2])]);
    let none = project.oss_run("report none*").ends_with(2).stderr;
    assert!(none.contains("no run matches `none*` in runs"), "{none}");
    project.oss_run("rm t*y --yes").ends_with(0);
    assert!(ids(&project, "").is_empty());
}

#[test]
fn a_run_is_shown_with_its_history() {
    let project = Project::new();
    project.oss_run("tiny.toml --set optimizer.lr=0.01 --stop-at-step 3").ends_with(75);
    project.oss_run("resume last").ends_with(0);
    let shown = document(&project.oss_run("show last --json").ends_with(0));
    assert_eq!(shown["state"], "done");
    assert_eq!(shown["segments"].as_array().unwrap().len(), 2);
    assert_eq!(shown["segments"][0]["exit"], "stopped");
    let stages: Vec<&str> =
        shown["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["prepare", "train", "evaluate", "sample", "export"]);
    assert_eq!(shown["stages"][1]["reason"], "stopped at step 3 of 6");
    let values = shown["values"].as_array().unwrap();
    let lr = values.iter().find(|value| value["key"] == "optimizer.lr").unwrap();
    assert_eq!(lr, &value!({"key": "optimizer.lr", "value": 0.01, "set_by": "--set optimizer.lr=0.01"}));
    let measured = losses(&project.the_run());
    let least = measured.iter().map(|(_, loss)| *loss).fold(f64::INFINITY, f64::min);
    assert_eq!(shown["metrics"][0]["name"], "loss");
    assert_eq!(shown["metrics"][0]["first"], measured[0].1);
    assert_eq!(shown["metrics"][0]["best"], least);
    assert!(shown["checkpoints"].as_array().unwrap().iter().all(|kept| kept["bytes"].as_u64().unwrap() > 0));

    let text = project.oss_run("show tiny").ends_with(0).stdout;
    for words in
        ["state    done", "2 starts", "--set optimizer.lr=0.01", "/export", "samples/final.txt", "step 6"]
    {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
}

#[test]
fn differences_are_shown_by_kind_if_there_are_any() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let first = project.the_run();
    project.oss_run("tiny.toml --new").ends_with(0);
    let id = first.file_name().unwrap().to_str().unwrap().to_owned();
    let same = project.oss_run(&format!("diff {id} {id}-2")).ends_with(0).stdout;
    assert!(
        same.ends_with("\nno differences in configuration, data, code, environment or metrics\n"),
        "{same}"
    );

    project.write("text.txt", &crate::project::text(121));
    let mut other = project.command("tiny.toml --set optimizer.lr=0.01");
    Ended::of(other.env("MALLOC_ARENA_MAX", "7")).ends_with(0);
    let found = document(&project.oss_run(&format!("diff {id} last --json")).ends_with(0));
    let names = |part: &str| -> Vec<String> {
        let part = found[part].as_array().unwrap();
        part.iter().map(|difference| difference["what"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("configuration"), ["optimizer.lr"]);
    assert_eq!(names("data"), ["text of main", "tokens"]);
    assert!(names("code").is_empty());
    assert!(names("environment").contains(&"variables.MALLOC_ARENA_MAX".to_owned()));
    assert!(names("metrics").contains(&"last loss".to_owned()));
    let second = project.path(found["right"].as_str().unwrap());
    let parted = losses(&first).into_iter().zip(losses(&second)).find(|(a, b)| a != b).unwrap().0.0;
    assert_eq!((&found["same"], &found["first_different_loss"]["step"]), (&value!(false), &value!(parted)));
    let text = project.oss_run(&format!("diff {id} last")).ends_with(0).stdout;
    let at = |words: &str| text.find(words).unwrap_or_else(|| panic!("{words} is not in:\n{text}"));
    let parting = format!("losses differ from step {parted}");
    let places = ["configuration", "data", "environment", "metrics", &parting].map(at);
    assert!(places.is_sorted(), "{text}");
    assert!(text.contains("0.0003") && text.contains("0.01"), "{text}");
}

#[test]
fn labels_added_later_are_kept() {
    let project = Project::with(&["run.labels = { draft = 'yes', set = 'a' }"]);
    project.oss_run("tiny.toml --until train").ends_with(0);
    let run = project.the_run();
    let mut command = project.command("label last good=very paper=1 --remove draft --json --notes");
    let marks = document(&Ended::of(command.arg("look again")).ends_with(0));
    let expected = value!({"labels": {"good": "very", "paper": "1", "set": "a"}, "notes": "look again"});
    assert_eq!(marks, expected);
    assert_eq!(ids(&project, "--label good --label paper=1").len(), 1);
    assert!(ids(&project, "--label draft").is_empty());

    // The experiment file, which lacks these labels, still matches the run, with nothing left to do.
    let manifest = fs::read(run.join("manifest.json")).unwrap();
    assert_eq!(project.oss_run("tiny.toml --until train").ends_with(0).ran(), [""; 0]);
    assert_eq!(fs::read(run.join("manifest.json")).unwrap(), manifest);
    // Continuing the run does not overwrite them either, whether from the file or from the run's own copy.
    project.oss_run("tiny.toml --until evaluate").ends_with(0);
    let own = run.join("experiment.toml");
    project.oss_run(&format!("run {} --until sample", own.display())).ends_with(0);
    project.oss_run("resume last").ends_with(0);
    assert_eq!(document(&project.oss_run("label last --json").ends_with(0)), expected);
    // Labels on the command line take precedence.
    project.oss_run("tiny.toml --set run.labels.good=no").ends_with(0);
    assert_eq!(json(&run.join("manifest.json"))["experiment"]["run"]["labels"]["good"], "no");

    let refused = project.oss_run("label last --remove draft").ends_with(2);
    assert!(refused.stderr.contains("no label draft\nhint: it has good, paper, set"), "{}", refused.stderr);
    project.oss_run("label last paper").ends_with(2);
}

#[test]
fn a_run_in_progress_is_shown_with_its_process() {
    let project = Project::with(&["train.steps = 100000", "checkpoint.every_steps = 100000"]);
    let mut started = project.start("tiny.toml --until train");
    started.wait_for("train ");
    let runs = document(&project.oss_run("ls --json --state running").ends_with(0));
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
    let held = format!("process {} on ", started.pid());
    assert!(project.oss_run("show last").ends_with(0).stdout.contains(&held));
    for arguments in ["label last a=b", "rm last --yes"] {
        let refused = project.oss_run(arguments).ends_with(1);
        assert!(refused.stderr.contains(&held), "{}", refused.stderr);
    }
    started.signal("KILL");
    started.end();
    assert_eq!(ids(&project, "--state interrupted").len(), 1);
    project.oss_run("label last a=b").ends_with(0);
}
