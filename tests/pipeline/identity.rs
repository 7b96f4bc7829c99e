//! Which run an experiment belongs to, and which of its stages run.

use crate::project::{Project, json, losses, weights};

const STAGES: [&str; 5] = ["prepare", "train", "evaluate", "sample", "export"];

/// The error for raising the steps of a schedule whose decay is derived from them.
const REFUSED: &str = "would change the learning rate of steps already taken\nhint: to continue at the lowest learning \
                       rate, set schedule.decay_steps = 4; to train 8 steps from the start, pass --new; ";

#[test]
fn running_an_experiment_again_runs_no_stage() {
    let project = Project::new();
    let first = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(first.ran(), STAGES.map(|stage| format!("{stage}: never ran")));
    let run = project.the_run();
    let manifest = std::fs::read(run.join("manifest.json")).unwrap();
    let again = project.oss_run("run tiny.toml").ends_with(0);
    assert_eq!(again.ran(), [""; 0]);
    assert_eq!(again.stages().len(), 5);
    assert_eq!(project.the_run(), run);
    assert_eq!(std::fs::read(run.join("manifest.json")).unwrap(), manifest, "nothing was written");
}

#[test]
fn only_the_changed_later_stage_runs() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    for (set, ran) in [
        ("export.dtype=f32", "export: export.dtype changed bf16 -> f32"),
        ("sample.seed=7", "sample: sample.seed changed 0 -> 7"),
        ("evaluate.max_tokens=100", "evaluate: evaluate.max_tokens changed 200 -> 100"),
    ] {
        let ended = project.oss_run(&format!("tiny.toml --set {set}")).ends_with(0);
        assert_eq!(ended.ran(), [ran]);
        let back = project.oss_run("tiny.toml").ends_with(0);
        assert_eq!(back.ran().len(), 1, "and back: {:?}", back.ran());
    }
    assert_eq!(project.runs().len(), 1);
}

#[test]
fn changing_a_recorded_value_runs_no_stage() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let recorded = "--set train.micro_batch_size=1 --set checkpoint.every_steps=3 --set run.notes=hello \
                    --set train.activation_checkpointing=true --set evaluate.every_steps=1";
    let ended = project.oss_run(&format!("tiny.toml {recorded}")).ends_with(0);
    assert_eq!(ended.ran(), [""; 0]);
    let manifest = json(&project.the_run().join("manifest.json"));
    assert_eq!(manifest["experiment"]["run"]["notes"], "hello", "but it is recorded");
}

#[test]
fn a_different_trajectory_gets_a_different_directory() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let ended = project.oss_run("tiny.toml --until train --set optimizer.lr=0.01").ends_with(0);
    assert_eq!(ended.ran(), ["train: never ran"], "the prepared text is shared");
    assert_eq!(project.runs().len(), 2);
    for run in project.runs() {
        let manifest = json(&run.join("manifest.json"));
        let key = manifest["keys"]["trajectory"].as_str().unwrap();
        assert_eq!(run.file_name().unwrap().to_str().unwrap(), &key[..10]);
    }
}

#[test]
fn a_new_run_of_the_same_experiment_has_the_same_bits() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let first = project.the_run();
    project.oss_run("tiny.toml --new").ends_with(0);
    let second = first.with_file_name(format!("{}-2", first.file_name().unwrap().to_str().unwrap()));
    assert_eq!(project.runs(), [first.clone(), second.clone()]);
    assert_eq!(weights(&first), weights(&second));
    assert_eq!(losses(&first), losses(&second));
    let again = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(again.ran(), [""; 0]);
    assert!(again.stderr.contains(second.file_name().unwrap().to_str().unwrap()), "`last` is the newest");
}

#[test]
fn the_resolved_file_belongs_to_the_same_run() {
    let project = Project::new();
    project.oss_run("tiny.toml --set optimizer.lr=0.002").ends_with(0);
    let resolved = project.the_run().join("experiment.toml");
    let again = project.oss_run(&format!("run {}", resolved.display())).ends_with(0);
    assert_eq!(again.ran(), [""; 0]);
    assert_eq!(project.runs().len(), 1);
}

/// An uninterrupted run of the full length in its own project, for comparison.
fn uninterrupted(values: &[&str]) -> (String, Vec<(u64, f64)>) {
    let project = Project::with(values);
    project.oss_run("tiny.toml --until train").ends_with(0);
    (weights(&project.the_run()), losses(&project.the_run()))
}

#[test]
fn raising_the_steps_extends_a_constant_schedule() {
    let project = Project::with(&["train.steps = 4"]);
    project.oss_run("tiny.toml").ends_with(0);
    project.set(&["train.steps = 8"]);
    let raised = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(raised.ran()[0], "train: train.steps raised 4 -> 8");
    let run = project.the_run();
    let whole = uninterrupted(&["train.steps = 8"]);
    assert_eq!((weights(&run), losses(&run)), whole);
}

#[test]
fn raising_the_steps_continues_wsd_from_before_its_decay() {
    let wsd = ["schedule.kind = 'wsd'", "checkpoint.every_steps = 100", "checkpoint.keep_last = 1"];
    let project = Project::with(&wsd);
    project.set(&["train.steps = 10"]);
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    assert!(run.join("checkpoints/step-00000008").is_dir(), "kept: the last one before the decay");
    project.set(&["train.steps = 15"]);
    let raised = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(raised.ran()[0], "train: train.steps raised 10 -> 15");
    assert_eq!(project.the_run(), run);
    let whole = uninterrupted(&[wsd[0], wsd[1], wsd[2], "train.steps = 15"]);
    assert_eq!((weights(&run), losses(&run)), whole);
}

#[test]
fn raising_the_steps_of_a_derived_decay_is_refused() {
    for kind in ["cosine", "linear"] {
        let project = Project::with(&["train.steps = 4", &format!("schedule.kind = '{kind}'")]);
        project.oss_run("tiny.toml --until train").ends_with(0);
        let run = project.the_run();
        let before = weights(&run);
        let raised = project.oss_run("tiny.toml --set train.steps=8").ends_with(2);
        assert!(raised.stderr.contains(REFUSED), "{}", raised.stderr);
        let resumed = project.oss_run("resume last --set train.steps=8").ends_with(2);
        assert!(resumed.stderr.contains(REFUSED), "{}", resumed.stderr);
        assert_eq!((project.the_run(), weights(&run)), (run.clone(), before), "nothing changed");

        // The remedy that the message suggests: the same run, continued at its minimum learning rate.
        let set = "--set schedule.decay_steps=4 --set train.steps=6 --until train";
        let extended = project.oss_run(&format!("tiny.toml {set}")).ends_with(0);
        assert_eq!(extended.ran(), ["train: train.steps raised 4 -> 6"]);
        assert_eq!(project.the_run(), run);
        project.oss_run("tiny.toml --set train.steps=8 --until train --new").ends_with(0);
        assert_eq!(project.runs().len(), 2, "`--new` starts another run");
    }
}

#[test]
fn fewer_steps_than_taken_are_refused_and_a_shorter_decay_is_another_run() {
    let project = Project::new();
    project.oss_run("tiny.toml --until train").ends_with(0);
    let lowered = project.oss_run("tiny.toml --set train.steps=3").ends_with(2);
    assert!(
        lowered.stderr.contains("the run has already taken 6 steps, more than train.steps = 3"),
        "{}",
        lowered.stderr
    );
    project.set(&["schedule.kind = 'cosine'"]);
    project.oss_run("tiny.toml --until train").ends_with(0);
    project.oss_run("tiny.toml --until train --set train.steps=4").ends_with(0);
    assert_eq!(project.runs().len(), 3);
}

#[test]
fn forced_training_starts_over_with_the_same_result() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    let before = (weights(&run), losses(&run));
    let forced = project.oss_run("tiny.toml --force train").ends_with(0);
    assert_eq!(forced.ran(), ["train: forced"], "equal weights leave the later stages fresh");
    assert_eq!((weights(&run), losses(&run)), before);
    assert!(!run.join("checkpoints.replaced").exists());
    let one = project.oss_run("tiny.toml --force sample --until sample").ends_with(0);
    assert_eq!(one.ran(), ["sample: forced"]);
}

#[test]
fn an_extended_wsd_run_can_be_stopped_and_resumed() {
    let wsd = ["schedule.kind = 'wsd'", "checkpoint.every_steps = 3", "checkpoint.keep_last = 1"];
    let project = Project::with(&wsd);
    project.oss_run("tiny.toml --until train --set train.steps=10").ends_with(0);
    project.set(&["train.steps = 15"]);
    // Stopped before the step of the last checkpoint of the abandoned decay.
    project.oss_run("tiny.toml --until train --stop-at-step 9").ends_with(75);
    project.oss_run("resume last").ends_with(0);
    let whole = uninterrupted(&[wsd[0], wsd[1], wsd[2], "train.steps = 15"]);
    assert_eq!((weights(&project.the_run()), losses(&project.the_run())), whole);
}
