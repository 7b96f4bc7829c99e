//! Subcommands, exit statuses, and what goes to stdout.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::project::{Ended, Project};

fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap()
}

#[test]
fn a_plan_writes_nothing() {
    let project = Project::new();
    let ended = project.oss_run("plan tiny.toml").ends_with(0);
    assert!(ended.stdout.contains("prepare    stale: never ran"), "{}", ended.stdout);
    assert!(ended.stdout.contains("optimizer.lr").eq(&false), "defaults are not shown");
    assert!(project.oss_run("plan tiny.toml --explain").ends_with(0).stdout.contains("optimizer.lr"));
    assert!(project.runs().is_empty());
    project.oss_run("tiny.toml").ends_with(0);
    let plan = document(&project.oss_run("plan tiny.toml --json --set export.dtype=f32").ends_with(0));
    let statuses: Vec<&str> =
        plan["stages"].as_array().unwrap().iter().map(|stage| stage["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["fresh", "fresh", "fresh", "fresh", "stale"]);
    assert_eq!(plan["stages"][4]["reason"], "export.dtype changed bf16 -> f32");
    assert!(plan["epochs"].as_f64().unwrap() > 0.0);
    assert!(plan["throughput"]["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_value_is_explained() {
    let project = Project::with(&["schedule.kind = 'wsd'", "train.steps = 10"]);
    let plan = document(&project.oss_run("plan tiny.toml --json").ends_with(0));
    let explained = |key: &str| {
        let values = plan["values"].as_array().unwrap();
        let line = values.iter().find(|line| line["key"] == key).unwrap();
        [&line["value"], &line["layer"]].map(|word| word.as_str().unwrap_or("-").to_owned())
    };
    for (key, value, layer) in [
        ("schedule.decay_steps", "2", "derived"),
        ("model.vocab_size", "257", "input"),
        ("dataset.end_of_text", "\"<|endoftext|>\"", "derived"),
        ("optimizer.max_grad_norm", "1", "derived"),
        ("train.router_aux_loss_coef", "0.1", "derived"),
        ("model.layer_types", "[\"sliding_attention\",\"full_attention\"]", "derived"),
        ("model.preset", "\"tiny\"", "file"),
        ("train.steps", "10", "file"),
        ("optimizer.lr", "0.0003", "default"),
        ("optimizer.momentum", "-", "default"),
    ] {
        assert_eq!(explained(key), [value, layer], "{key}");
    }
    let text = project.oss_run("plan tiny.toml --explain").ends_with(0).stdout;
    assert!(text.contains("default: a fifth of train.steps") && !text.contains("unset"), "{text}");
}

#[test]
fn quiet_shows_only_errors_and_verbose_more() {
    // AdamW has no momentum, which is worth a warning.
    let project = Project::with(&["optimizer.momentum = 0.9"]);
    let said = |arguments: &str| project.oss_run(arguments).ends_with(0).stderr;
    assert!(said("plan tiny.toml").starts_with("warning: "));
    assert_eq!(said("plan tiny.toml -q"), "");
    assert_eq!(said("run tiny.toml -q --until prepare"), "");
    let quiet = project.oss_run("run tiny.toml --quiet --json").ends_with(0);
    assert_eq!((quiet.stderr.as_str(), document(&quiet)["name"].as_str()), ("", Some("tiny")));
    assert!(!project.oss_run("ls -q").ends_with(0).stdout.is_empty());
    let refused = project.oss_run("plan -q tiny.toml --set train.steps=0").ends_with(2).stderr;
    assert!(refused.contains("train.steps"), "{refused}");
    let failed = project.oss_run("resume -q nothing").ends_with(2).stderr;
    assert!(failed.starts_with("error: ") && failed.contains("\nhint: "), "{failed}");
    let usual = said("tiny.toml --new --until train");
    assert!(usual.contains("train      stale") && !usual.contains("debug: "), "{usual}");
    let more = said("tiny.toml --new --until train -v");
    assert!(more.contains("debug: ") && !more.contains("trace: "), "{more}");
    assert!(said("tiny.toml --new --until train -vv").contains("trace: "));
    project.oss_run("ls -q -v").ends_with(2);
}

#[test]
fn colors_follow_the_terminal_and_its_variables() {
    use crate::terminal::Terminal;

    let project = Project::new();
    let painted = |variables: &[(&str, &str)]| {
        let mut command = project.command("show nothing");
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command.envs(variables.iter().copied());
        Terminal::after(command, 80).written().contains("\u{1b}[31m")
    };
    assert!(painted(&[]));
    for variable in [("NO_COLOR", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")] {
        assert!(!painted(&[variable]), "{variable:?}");
    }
    assert!(!project.oss_run("show nothing").ends_with(2).stderr.contains('\u{1b}'), "a pipe");
    // A dumb terminal cannot draw progress bars either.
    let mut command = project.command("tiny.toml --until prepare");
    command.env("TERM", "dumb");
    assert!(!Terminal::after(command, 80).written().contains('\u{1b}'));
    assert!(Terminal::after(project.command("tiny.toml --new"), 80).written().contains('\u{1b}'));
    // The command line's own errors, too.
    let mut command = project.command("show --nothing");
    command.env("NO_COLOR", "1");
    assert!(!Terminal::after(command, 80).written().contains('\u{1b}'));
    assert!(Terminal::after(project.command("show --nothing"), 80).written().contains('\u{1b}'));
}

#[test]
fn the_20b_plan_is_quick_and_exact() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/experiments/20b_tinystories.toml");
    let project = Project::new();
    let start = Instant::now();
    let plan = document(&project.oss_run(&format!("plan --json {file}")).ends_with(0));
    // On its own it takes a quarter of this; other tests run concurrently.
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert_eq!(plan["parameters"]["total"], 20_914_757_184_i64);
    assert_eq!(plan["run"], Value::Null, "the Hub was not queried");
    let gigabytes = plan["memory"]["state"].as_f64().unwrap() / 1e9;
    assert!((66.0..68.0).contains(&gigabytes), "a fifth of the state is {gigabytes} GB");
    assert!(plan["fits"][0]["missing"].as_u64().unwrap() > 0, "24 GB is not enough");
    assert!(plan["traffic"]["total"].as_u64().unwrap() > 0);
}

#[test]
fn inspecting_a_run_does_not_change_it() {
    let project = Project::new();
    project.oss_run("tiny.toml").ends_with(0);
    let run = project.the_run();
    let manifest = std::fs::read(run.join("manifest.json")).unwrap();

    let evaluation = document(&project.oss_run("evaluate last --json").ends_with(0));
    let recorded: Value =
        serde_json::from_slice(&std::fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(evaluation, recorded);
    let text = document(&project.oss_run("evaluate tiny --step 4 --data text.txt --json").ends_with(0));
    assert_eq!(text["step"], 4);
    assert!(text["tokens"].as_u64().unwrap() > recorded["tokens"].as_u64().unwrap());
    for (data, words) in [
        ("none.txt", "error: no file none.txt\nhint: pass the path of a text file"),
        (
            "s3://b/x.txt",
            "error: s3://b/x.txt is a URL, not a local file\nhint: download it with `aws s3 cp ",
        ),
    ] {
        let missing = project.oss_run(&format!("evaluate last --data {data}")).ends_with(2);
        assert!(missing.stderr.starts_with(words), "{}", missing.stderr);
    }

    let id = run.file_name().unwrap().to_str().unwrap();
    let asked = format!(
        "sample {} --prompt A --prompt B --num-samples 2 --max-new-tokens 3 --greedy --json",
        &id[..6]
    );
    let samples = document(&project.oss_run(&asked).ends_with(0));
    let samples = samples["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 4);
    assert_eq!(samples[0]["prompt_tokens"].as_array().unwrap().len(), 1);
    assert!(samples.iter().all(|sample| sample["tokens"].as_array().unwrap().len() <= 3));
    assert_eq!(samples[0]["tokens"], samples[1]["tokens"], "greedy");
    project.oss_run("sample last --prompt A --top-p 2").ends_with(2);
    for weights in ["f32", "bf16", "int8"] {
        let asked = format!("sample last --prompt A --max-new-tokens 3 --greedy --json --weights {weights}");
        let samples = document(&project.oss_run(&asked).ends_with(0));
        assert_eq!(samples["samples"].as_array().unwrap().len(), 1, "{weights}");
    }
    let unknown = project.oss_run("sample last --prompt A --weights int9").ends_with(2);
    assert!(unknown.stderr.contains("int8"), "{}", unknown.stderr);
    let shared = project.oss_run("sample last --prompt A --weights int8 --ranks 2");
    assert!(shared.stderr.contains("--ranks 1"), "{}", shared.stderr);

    project.oss_run("export last --dtype f32 --out copy").ends_with(0);
    assert!(project.path("copy/config.json").exists());
    assert_eq!(std::fs::read(run.join("manifest.json")).unwrap(), manifest);

    project.oss_run("export last --dtype f32").ends_with(0);
    let ended = project.oss_run("tiny.toml").ends_with(0);
    assert_eq!(ended.ran(), ["export: export.dtype changed f32 -> bf16"], "the graph sees the actual export");
}

#[test]
fn invalid_experiments_and_command_lines_exit_with_status_2() {
    let project = Project::new();
    project.write("tiny.yaml", "train:\n  steps: 3\n");
    for (arguments, words) in [
        ("tiny.toml --set optimizer.leraning_rate=1", "leraning_rate"),
        ("tiny.toml --set train.steps=-1", "train.steps"),
        ("tiny.toml --set train.micro_batch_size=3", "micro_batch_size"),
        ("run tyni.toml", "no experiment file tyni.toml"),
        ("resume nothing", "no run `nothing`"),
        ("tiny.toml --set model.vocab_size=100", "the tokenizer has 257 tokens"),
        ("tiny.toml --set dataset.files=[\"none.txt\"]", "none.txt: no such file"),
        ("tiny.toml --set model.init_from=hf://openai/gpt-oss-20b", "write \"openai/gpt-oss-20b\""),
        ("tiny.yaml", "tiny.yaml is YAML; experiments are TOML"),
        ("plan https://a.b/c.toml", "is a URL, not a local file"),
        ("plan runs", "no experiment file runs"),
        ("plan .", "error: . is a directory, not an experiment file\nhint: available: ./tiny.toml"),
        ("plan tiny", "hint: did you mean tiny.toml?"),
        ("pln tiny.toml", "pln"),
        ("run tiny.toml --until nowhere", "nowhere"),
    ] {
        let ended = project.oss_run(arguments).ends_with(2);
        assert!(ended.stderr.contains(words), "{arguments}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{arguments}");
    }
    assert!(project.runs().is_empty());
}

#[test]
fn a_missing_experiment_suggests_the_nearest() {
    let project = Project::new();
    std::fs::create_dir(project.path("experiments")).unwrap();
    project.write("experiments/quickstart.toml", "");
    let ended = project.oss_run("run quikstart").ends_with(2);
    let hint = "\nhint: did you mean experiments/quickstart.toml?";
    assert!(ended.stderr.trim_end().ends_with(hint), "{}", ended.stderr);
}

#[test]
fn a_finished_run_reports_where_its_outputs_are() {
    let project = Project::new();
    let ended = project.oss_run("tiny.toml --json").ends_with(0);
    let summary = document(&ended);
    for name in ["model", "samples", "tensorboard"] {
        let path = project.path(summary[name].as_str().unwrap());
        assert!(path.exists(), "{}", path.display());
    }
    assert!(summary["evaluation"]["nats_per_byte"].as_f64().unwrap() > 0.0);
    assert!(ended.stderr.contains("train      stale: never ran"), "messages go to stderr");
}

#[test]
fn the_schema_is_printed() {
    let project = Project::new();
    let schema = document(&project.oss_run("schema").ends_with(0));
    assert!(schema["properties"]["optimizer"].is_object());
}

#[test]
fn the_doctor_passes_here() {
    let project = Project::new();
    let ended = project.oss_run("doctor").ends_with(0);
    assert!(ended.stdout.contains("o200k_harmony, 201088 tokens"), "{}", ended.stdout);
}

/// What `plan` can know does not wait for the data to be prepared.
#[test]
fn training_that_cannot_end_well_does_not_start() {
    let project = Project::new();
    let refused = |set: &str, words: &str, status: i32| {
        let ended = project.oss_run(&format!("tiny.toml --set {set}")).ends_with(status);
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
        assert!(!project.path("runs/.prepared").exists(), "something was prepared");
    };
    if cfg!(not(feature = "cuda")) {
        refused("train.device=cuda", "this oss-run was built without CUDA", 1);
    }
    let large = "train.micro_batch_size=1048576 --set train.global_batch_size=1048576";
    refused(&format!("{large} --set train.sequence_length=4096"), "training needs ", 2);
    refused(
        "sharding.strategy=ddp --set sharding.ranks=1000000 --set train.global_batch_size=1000000 --set \
         train.micro_batch_size=1 --force-start",
        "1000000 ranks are too many for this machine",
        2,
    );
}

/// More steps than `train.max_skipped_steps`, whose losses are not finite.
#[test]
fn a_dry_run_ignores_losses_that_are_not_finite() {
    let project = Project::with(&["train.precision = 'f16'", "model.initializer_range = 1000.0"]);
    project.oss_run("plan tiny.toml --dry-run --steps 40").ends_with(0);
}
