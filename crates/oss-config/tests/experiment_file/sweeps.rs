//! `[sweep]`: how it is parsed, and the problems it reports.

use oss_config::{Candidates, Overrides, Values, load, load_trial};
use serde_json::json;

use super::Folder;

const BASE: &str = "[dataset]\nbuiltin = \"stories\"\n[optimizer]\nlr = 1e-3\n[train]\nsteps = 500\n";

fn errors(sweep: &str) -> String {
    let folder = Folder::new(&[("base.toml", BASE)]);
    folder.write("s.toml", &format!("[sweep]\nbase = \"base.toml\"\n{sweep}"));
    let errors = folder.load("s.toml", &[]).expect_err(sweep).to_string();
    folder.plain(&errors)
}

#[test]
fn keys_may_be_quoted_or_not() {
    let folder = Folder::new(&[("base.toml", BASE)]);
    let read = |parameters: &str| {
        folder.write("s.toml", &format!("[sweep]\nbase = \"base.toml\"\n[sweep.parameters]\n{parameters}"));
        load(&folder.path("s.toml"), &Overrides::default()).expect("loads").sweep.expect("sweeps")
    };
    let quoted = read("\"optimizer.lr\" = [1, 2e-3]\n\"run.seed\" = [1]\n");
    let bare = read("optimizer.lr = [1, 2e-3]\nrun.seed = [1]\n");
    assert_eq!(quoted, bare);
    let wanted = Candidates::Choice(vec![json!(1.0), json!(2e-3)]);
    assert_eq!(quoted.parameters["optimizer.lr"], wanted, "integers become floats where the key takes those");
}

#[test]
fn a_trial_overrides_the_file_which_overrides_the_base() {
    let folder = Folder::new(&[("base.toml", BASE)]);
    let text = "[sweep]\nbase = \"base.toml\"\n[sweep.parameters]\noptimizer.lr = [1e-3, 5e-3]\n[train]\nsteps = 700\n";
    folder.write("s.toml", text);
    let values = Values::from([("optimizer.lr".to_owned(), json!(5e-3))]);
    let trial = load_trial(&folder.path("s.toml"), &Overrides::default(), &values).expect("loads");
    let experiment = &trial.experiment;
    assert_eq!((experiment.optimizer.lr, experiment.train.steps), (5e-3, 700));
    assert_eq!(experiment.run.name.as_deref(), Some("s"));
    let place = trial.provenance.of("optimizer.lr").to_string();
    assert!(place.ends_with("s.toml:4:23"), "{place}");
}

#[test]
fn every_problem_has_a_location_and_a_fix() {
    let all = errors(
        r#"method = "radnom"
metrc = "val_loss"
halving = { min_steps = 0 }
[sweep.parameters]
"optimizer.lrr" = [1e-3]
train.precision = ["bf15"]
schedule.warmup_steps = [1, -1]
run.name = ["a"]
train.activation_checkpointing = { min = 0, max = 1 }
optimizer = [1]
[[sweep.skip]]
"optimizer.eps" = 1
"#,
    );
    insta::assert_snapshot!(all);
}

#[test]
fn sections_that_do_not_fit_their_method() {
    let shown = [
        "",
        "method = \"list\"",
        "method = \"random\"\n[sweep.parameters]\noptimizer.lr = { min = 1, max = 0.5 }",
        "method = \"random\"\nnum_trials = 3\n[sweep.parameters]\noptimizer.weight_decay = { min = 0, max = 1, log = true }",
        "[[sweep.trials]]\noptimizer.lr = 1e-3",
        "[sweep.parameters]\noptimizer.lr = []",
        "[sweep.parameters]\noptimizer.lr = [1e-3]\n[sweep.halving]\nmin_steps = 500",
        "[sweep.parameters]\ntrain.steps = [100, 200]\n[sweep.halving]\nmin_steps = 50",
        "[sweep.parameters]\noptimizer.lr = [1e-3]\n[dataset.validation]\nfraction = 0.0\n[evaluate]\nevery_steps = 0",
    ]
    .map(errors)
    .join("\n");
    insta::assert_snapshot!(shown);
}

#[test]
fn a_rung_within_the_warmup_is_a_warning() {
    let folder = Folder::new(&[("base.toml", BASE)]);
    let warnings = |sweep: &str| {
        folder.write("s.toml", &format!("[sweep]\nbase = \"base.toml\"\n{sweep}"));
        folder
            .load("s.toml", &[])
            .expect("loads")
            .warnings
            .iter()
            .map(|text| folder.plain(text))
            .collect::<Vec<_>>()
    };
    let rung =
        |steps| format!("[sweep.parameters]\nrun.seed = [1, 2]\n[sweep.halving]\nmin_steps = {steps}\n");
    assert_eq!(warnings(&rung(150)), [""; 0]);
    let [only] = warnings(&rung(100)).try_into().expect("one");
    let expected = "s.toml:5:8: the first rung, at step 100, lies within a warmup of 100 steps: the best trials there are not \
                    necessarily the best overall; set sweep.halving.min_steps well above schedule.warmup_steps";
    assert_eq!(only, expected);
    let swept = "[sweep.parameters]\nschedule.warmup_steps = [10, 200]\n[sweep.halving]\nmin_steps = 150\n";
    assert_eq!(warnings(swept).len(), 1);
}

#[test]
fn only_the_file_itself_sweeps() {
    let folder = Folder::new(&[("base.toml", BASE)]);
    folder.write("s.toml", "[sweep]\nbase = \"base.toml\"\n[sweep.parameters]\nrun.seed = [1, 2]\n");
    folder.write("t.toml", "extends = \"s.toml\"\n");
    let error = folder.load("t.toml", &[]).expect_err("sweeps beneath").to_string();
    assert!(error.contains("s.toml:1:2: only the file named on the command line"), "{error}");
    let error = folder.load("s.toml", &["run.seed=7"]).expect_err("swept").to_string();
    assert!(error.contains("--set run.seed=7: `run.seed` is swept, so it cannot be overridden"), "{error}");
}
