//! A new user's first commands: `doctor`, `init`, and the first run.

use serde_json::Value;

use crate::project::{Ended, Project};

const TEMPLATES: [&str; 5] = ["stories", "text", "hub", "finetune", "gpu"];

#[test]
fn every_template_can_be_planned() {
    let project = Project::new();
    std::fs::create_dir(project.path("texts")).unwrap();
    std::fs::copy(project.path("text.txt"), project.path("texts/mine.txt")).unwrap();
    for template in TEMPLATES {
        let ended = project.oss_run(&format!("init {template} --template {template}")).ends_with(0);
        assert_eq!(ended.stdout, format!("{template}.toml\n"));
        assert!(ended.stderr.contains(&format!("oss-run plan {template}.toml")), "{}", ended.stderr);
        let plan = project.oss_run(&format!("plan {template}.toml --json")).ends_with(0);
        let plan: Value = serde_json::from_str(&plan.stdout).unwrap();
        assert!(plan["parameters"]["total"].as_u64().unwrap() > 0, "{template}");
    }
    let help = project.oss_run("init --help").ends_with(0).stdout;
    for template in TEMPLATES {
        assert!(help.contains(&format!("- {template}:")), "{template} is missing from the help:\n{help}");
    }
}

#[test]
fn init_overwrites_nothing() {
    let project = Project::new();
    project.write("schema.json", "mine");
    let ended = project.oss_run("init tiny").ends_with(2);
    assert!(
        ended.stderr.contains("tiny.toml already exists") && ended.stderr.contains("oss-run init tiny-2")
    );
    project.oss_run("init folder/new.toml").ends_with(0);
    let schema = project.oss_run("schema").ends_with(0).stdout;
    assert_eq!(std::fs::read_to_string(project.path("folder/schema.json")).unwrap(), schema);
    project.oss_run("init beside").ends_with(0);
    assert_eq!(std::fs::read_to_string(project.path("schema.json")).unwrap(), "mine");
    let misspelt = project.oss_run("init other --template storys").ends_with(2);
    assert!(misspelt.stderr.contains("stories"), "{}", misspelt.stderr);
    assert!(!project.path("other.toml").exists());
}

#[test]
fn the_experiment_from_init_runs_from_end_to_end() {
    let project = Project::new();
    project.oss_run("init first").ends_with(0);
    let tiny = "--set model.preset=tiny --set model.hidden_size=16 --set train.steps=2 --set schedule.warmup_steps=1 \
                --set train.global_batch_size=1 --set train.micro_batch_size=1 --set train.sequence_length=16 \
                --set evaluate.max_tokens=64 --set sample.max_new_tokens=4 --set dataset.tokenizer=bytes \
                --set train.threads=1";
    let ended = project.oss_run(&format!("first.toml {tiny}")).ends_with(0);
    assert_eq!(ended.ran().len(), 5, "{}", ended.stderr);
    let again = project.oss_run(&format!("first.toml {tiny}")).ends_with(0);
    assert!(again.ran().is_empty(), "{}", again.stderr);
    assert!(
        project.oss_run("sample last --prompt One --max-new-tokens 2").ends_with(0).stdout.contains("One")
    );
}

#[test]
fn a_variable_sets_the_runs_directory_and_an_option_overrides_it() {
    let project = Project::new();
    let listed = |arguments: &str| {
        let mut command = project.command(arguments);
        Ended::of(command.env("OSS_RUN_RUNS_DIR", "elsewhere")).ends_with(2).stderr
    };
    assert!(listed("show last").contains("elsewhere"), "{}", listed("show last"));
    assert!(listed("show last --runs-dir here").contains("here"));
}

#[test]
fn the_doctor_reports_its_findings() {
    let project = Project::new();
    let ended = project.oss_run("doctor --json").ends_with(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let whats: Vec<&str> = checks.iter().filter_map(|check| check["what"].as_str()).collect();
    for what in ["libtorch", "GPU", "memory", "disk", "locks", "tokenizer", "tensorboard", "hub"] {
        assert!(whats.contains(&what), "{whats:?}");
    }
    for check in checks {
        assert_eq!(check["verdict"] == "good", check["fix"].is_null(), "{check}");
    }
    assert_eq!(project.oss_run("doctor").ends_with(0).stdout.lines().count(), checks.len());
    assert!(!project.path("runs").exists(), "nothing is written");
    let nowhere = project.oss_run("doctor --runs-dir /proc/runs").ends_with(1);
    assert!(
        nowhere.stdout.contains("bad     disk") && nowhere.stdout.contains("--runs-dir"),
        "{}",
        nowhere.stdout
    );
}
