//! Reads the reference values next to this file.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use oss_config::Model;
use oss_torch::tensor_from_bytes;
use oss_train::model::{Parameter, WeightSource};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};
use tch::{Kind, Tensor};

/// One file of reference values.
pub struct Golden {
    bytes: Vec<u8>,
    /// The file's metadata.
    pub case: Value,
}

impl Golden {
    /// Opens the file called `name`.
    pub fn open(name: &str) -> Self {
        let bytes = fs::read(path(&format!("{name}.safetensors"))).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let case = &metadata.metadata().as_ref().unwrap()["case"];
        Self { case: serde_json::from_str(case).unwrap(), bytes }
    }

    /// A tensor that must be in the file.
    pub fn tensor(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("there is no tensor {name}"))
    }

    /// A tensor, if the file contains it.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).ok()?;
        let kind = match view.dtype() {
            Dtype::F32 => Kind::Float,
            Dtype::I64 => Kind::Int64,
            other => panic!("{name} is {other:?}"),
        };
        let shape: Vec<i64> = view.shape().iter().map(|&size| size as i64).collect();
        Some(tensor_from_bytes(view.data(), &shape, kind))
    }

    /// A tensor with a single element.
    pub fn scalar(&self, name: &str) -> f64 {
        self.tensor(name).double_value(&[])
    }

    /// The token that starts a document, if attention is limited to documents.
    pub fn separator(&self) -> Option<i64> {
        self.case.get("separator").and_then(Value::as_i64)
    }

    /// Prompts and their greedy continuations.
    pub fn greedy(&self) -> Vec<(Vec<i64>, Vec<i64>)> {
        let tokens = |name: String| self.find(&name).map(|tokens| Vec::<i64>::try_from(tokens).unwrap());
        (0..)
            .map_while(|n| {
                Some((tokens(format!("greedy.{n}/prompt"))?, tokens(format!("greedy.{n}/tokens"))?))
            })
            .collect()
    }
}

impl WeightSource for Golden {
    fn load(&mut self, parameter: Parameter) -> Result<Tensor> {
        let name = parameter.name();
        self.find(&format!("weight/{name}")).with_context(|| format!("there is no weight {name}"))
    }
}

/// The architecture described by a file's `config.json`.
pub fn model_of(golden: &Golden) -> Model {
    model(golden.case["config"].as_object().unwrap())
}

/// The fields of `config` that belong to `[model]`.
fn model(config: &Map<String, Value>) -> Model {
    let known =
        serde_json::to_value(Model { vocab_size: Some(0), layer_types: Some(vec![]), ..Model::default() });
    let keep = |from: &Map<String, Value>, known: &Value| -> Map<String, Value> {
        from.iter().filter(|(key, _)| known.get(key).is_some()).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    let known = known.unwrap();
    let mut fields = keep(config, &known);
    let scaling = keep(config["rope_scaling"].as_object().unwrap(), &known["rope_scaling"]);
    fields.insert("rope_scaling".into(), Value::Object(scaling));
    serde_json::from_value(Value::Object(fields)).unwrap()
}

/// The rotary frequencies of one model shape.
pub struct Yarn {
    pub model: Model,
    pub inv_freq: Vec<f64>,
    pub attention_factor: f64,
}

/// The rotary frequencies of several model shapes.
pub fn yarn() -> Vec<Yarn> {
    let entries: Vec<Map<String, Value>> =
        serde_json::from_slice(&fs::read(path("yarn.json")).unwrap()).unwrap();
    entries
        .iter()
        .map(|entry| Yarn {
            model: model(entry),
            inv_freq: serde_json::from_value(entry["inv_freq"].clone()).unwrap(),
            attention_factor: entry["attention_factor"].as_f64().unwrap(),
        })
        .collect()
}

/// `|ours - theirs| / |theirs|` in Euclidean norms; shapes must agree.
pub fn relative_error(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.size(), theirs.size());
    let double = |x: &Tensor| x.to_device(tch::Device::Cpu).to_kind(Kind::Double);
    ((double(ours) - double(theirs)).norm() / double(theirs).norm()).double_value(&[])
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}
