//! Values that inputs determine where the experiment does not set them: initial weights the shape of the model and the
//! tokenizer, the amount of text the number of steps.

use serde_json::{Map, Value};

use super::{
    Experiment, ExperimentErrors, Model, Problem, Provenance, Resolved, SetBy, TokenizerChoice,
    check::{self, Finding},
    key_path::join,
};

/// What initial weights declare about themselves.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// Their shape, including the vocabulary size.
    pub model: Option<Model>,
    /// Their tokenizer.
    pub tokenizer: Option<TokenizerChoice>,
    /// Its end-of-text token, if it was set.
    pub end_of_text: Option<String>,
}

/// Fields of [`Model`] that do not describe existing weights.
const NOT_DECLARED: [&str; 3] = ["preset", "init_from", "initializer_range"];

impl Resolved {
    /// The experiment with the values that it leaves to its initial weights: fields of `[model]` without a preset, and
    /// the tokenizer with its end-of-text token. What the experiment sets is kept.
    ///
    /// # Errors
    /// Combinations with the declared shape that cannot work.
    pub fn with_declared(mut self, declared: &Declared) -> Result<Self, ExperimentErrors> {
        let from = format!("weights of {}", self.experiment.model.init_from.as_deref().unwrap_or_default());
        let mut problems = Vec::new();
        let before = self.provenance.clone();
        if let Some(theirs) = &declared.model {
            let mut filled = fields(&self.experiment.model);
            let theirs =
                fields(theirs).into_iter().filter(|(name, _)| !NOT_DECLARED.contains(&name.as_str()));
            fill(&mut filled, theirs.collect(), "model", &from, &mut self.provenance);
            match serde_json::from_value(Value::Object(filled)) {
                Ok(model) => self.experiment.model = model,
                Err(error) => problems.push(Problem::without_place(format!("`model`: {error}"))),
            }
        }
        if let Some(tokenizer) = &declared.tokenizer
            && !self.provenance.is_set("dataset.tokenizer")
        {
            let dataset = &mut self.experiment.dataset;
            dataset.tokenizer = tokenizer.clone();
            self.provenance.set("dataset.tokenizer".into(), SetBy::Input { from: from.clone() });
            if dataset.end_of_text.is_none() && declared.end_of_text.is_some() {
                dataset.end_of_text.clone_from(&declared.end_of_text);
                self.provenance.set("dataset.end_of_text".into(), SetBy::Input { from });
            }
        }
        self.check(problems, |finding| leaves_model_open(finding, &before))
    }

    /// The experiment with the vocabulary size of its tokenizer, if it sets none.
    pub fn with_vocabulary(mut self, tokens: i64) -> Self {
        if self.experiment.model.vocab_size.is_none() {
            self.experiment.model.vocab_size = Some(tokens);
            self.provenance.set("model.vocab_size".into(), SetBy::Input { from: "the tokenizer".into() });
        }
        self
    }

    /// The experiment with `steps` in place of `train.epochs`.
    ///
    /// # Errors
    /// Combinations with this number of steps that cannot work.
    pub fn with_steps(mut self, steps: u64) -> Result<Self, ExperimentErrors> {
        let train = &mut self.experiment.train;
        train.steps = steps;
        if let Some(epochs) = train.epochs.take() {
            let from = format!("train.epochs = {epochs}");
            self.provenance.set("train.steps".into(), SetBy::Input { from });
            self.provenance.set("train.epochs".into(), SetBy::Default);
        }
        self.check(Vec::new(), involves_steps)
    }

    /// Checks what loading has left open, as far as it is known now.
    fn check(
        mut self,
        mut problems: Vec<Problem>,
        was_open: impl Fn(&Finding) -> bool,
    ) -> Result<Self, ExperimentErrors> {
        for finding in check::findings(&self.experiment) {
            if !was_open(&finding) || awaits_steps(&finding, &self.experiment) {
                continue;
            }
            let problem = Problem::without_place(finding.message).help(finding.fix);
            match finding.is_warning {
                true => self.warnings.push(problem.to_string()),
                false => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(self) } else { Err(ExperimentErrors::new(problems)) }
    }
}

/// Whether a finding involves a value that an input may still determine.
pub(super) fn is_open(finding: &Finding, experiment: &Experiment, provenance: &Provenance) -> bool {
    let awaits_weights = experiment.model.init_from.is_some() && leaves_model_open(finding, provenance);
    awaits_weights || awaits_steps(finding, experiment)
}

fn awaits_steps(finding: &Finding, experiment: &Experiment) -> bool {
    experiment.train.epochs.is_some() && involves_steps(finding)
}

fn leaves_model_open(finding: &Finding, provenance: &Provenance) -> bool {
    finding.keys.iter().any(|key| key.starts_with("model.") && *provenance.of(key) == SetBy::Default)
}

fn involves_steps(finding: &Finding) -> bool {
    finding.keys.iter().any(|key| key == "train.steps")
}

fn fields(model: &Model) -> Map<String, Value> {
    match serde_json::to_value(model) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Takes from `theirs` each value that is not set.
fn fill(
    ours: &mut Map<String, Value>,
    theirs: Map<String, Value>,
    path: &str,
    from: &str,
    provenance: &mut Provenance,
) {
    for (name, value) in theirs {
        let key = join(path, &name);
        match (ours.get_mut(&name), value) {
            (Some(Value::Object(ours)), Value::Object(theirs)) => {
                fill(ours, theirs, &key, from, provenance);
            }
            (_, value) if !provenance.of(&key).is_explicit() => {
                ours.insert(name, value);
                provenance.set(key, SetBy::Input { from: from.to_owned() });
            }
            _ => {}
        }
    }
}
