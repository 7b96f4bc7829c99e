//! Model directories: released layouts load as in transformers, and exports are read back.

#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use oss_config::error::ErrorReport;
use oss_config::{ExportDtype, Model, Preset};
use oss_train::hf_format::{ExportOptions, HfDirectory, TokenizerFiles, export};
use oss_train::model::{BlockParameter, Parameter, WeightSource, parameters};
use proptest::strategy::{Strategy as _, ValueTree as _};
use tch::{Device, Kind, Tensor};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mxfp4").join(name)
}

fn read(path: &Path) -> HashMap<String, Tensor> {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

/// Random weights of a model, generated once.
struct Weights(HashMap<String, Tensor>);

impl Weights {
    fn new(model: &Model) -> Self {
        let random = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
        Self(parameters(model).into_iter().map(|spec| (spec.name, random(&spec.shape))).collect())
    }
}

impl WeightSource for Weights {
    fn load(&mut self, parameter: Parameter) -> anyhow::Result<Tensor> {
        Ok(self.0[&parameter.name()].shallow_clone())
    }
}

fn model() -> Model {
    Model { vocab_size: Some(50), intermediate_size: 48, ..Preset::Tiny.model() }
}

fn tokenizer() -> TokenizerFiles {
    TokenizerFiles {
        tokenizer_json: r#"{"version":"1.0"}"#.into(),
        tokenizer_config: serde_json::json!({ "eos_token": "<|endoftext|>" }),
        bos_token_id: None,
        eos_token_ids: vec![49],
        pad_token_id: Some(49),
    }
}

fn options(dtype: ExportDtype, max_shard_bytes: u64) -> ExportOptions {
    ExportOptions { dtype, max_shard_bytes }
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn message(error: anyhow::Error) -> String {
    ErrorReport::of(error).to_string()
}

fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

#[test]
fn both_released_layouts_load_as_in_transformers() {
    let expected = read(&golden("expected.safetensors"));
    for layout in ["huggingface", "openai"] {
        let mut directory = HfDirectory::open(&golden(layout)).unwrap();
        let model = directory.model().clone();
        assert_eq!(model.intermediate_size, 64);
        let specs = parameters(&model);
        assert_eq!(specs.len(), expected.len());
        for spec in specs {
            let (loaded, expected) = (directory.load(spec.parameter).unwrap(), &expected[&spec.name]);
            assert_eq!(loaded.kind(), Kind::BFloat16);
            assert_eq!(loaded.size(), expected.size(), "{layout}: {}", spec.name);
            assert!(loaded.equal(expected), "{layout}: {}", spec.name);
        }
    }
}

/// The four layouts in which a directory may store the same weights.
fn layouts() -> Vec<(&'static str, tempfile::TempDir)> {
    let expected = read(&golden("expected.safetensors"));
    let dense = copy_of("huggingface");
    let plain: Vec<_> =
        expected.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    Tensor::write_safetensors(&plain, dense.path().join("model.safetensors")).unwrap();
    let swapped = copy_of("openai");
    let path = swapped.path().join("model.safetensors");
    let mut stored = read(&path);
    for layer in 0..2 {
        for (theirs, ours) in [("mlp1_weight", "gate_up_proj"), ("mlp2_weight", "down_proj")] {
            let name = format!("block.{layer}.mlp.{theirs}");
            assert!(stored.remove(&format!("{name}.blocks")).is_some());
            assert!(stored.remove(&format!("{name}.scales")).is_some());
            let matrix = &expected[&format!("model.layers.{layer}.mlp.experts.{ours}")];
            stored.insert(name, matrix.transpose(1, 2).contiguous());
        }
    }
    Tensor::write_safetensors(&stored.into_iter().collect::<Vec<_>>(), &path).unwrap();
    vec![
        ("4-bit", copy_of("huggingface")),
        ("plain", dense),
        ("fused and 4-bit", copy_of("openai")),
        ("fused and swapped", swapped),
    ]
}

#[test]
fn any_range_of_a_parameter_equals_that_part_of_the_whole() {
    let expected = read(&golden("expected.safetensors"));
    for (layout, dir) in layouts() {
        let mut directory = HfDirectory::open(dir.path()).unwrap();
        let mut runner = proptest::test_runner::TestRunner::deterministic();
        for spec in parameters(&directory.model().clone()) {
            let name = &spec.name;
            directory.check_shape(&spec).unwrap();
            let whole = directory.load(spec.parameter).unwrap();
            assert!(whole.equal(&expected[name]) && whole.size() == spec.shape, "{layout}: {name}");
            let (flat, numel) = (whole.flatten(0, -1), spec.numel());
            // Both ends, the first row or expert, the boundary between two experts, one expert, and part of one.
            let row: i64 = spec.shape[1..].iter().product();
            let mut ranges = vec![(0, 0), (numel, numel), (0, 1), (numel - 1, numel), (0, row), (0, numel)];
            if let [_, _, out_width] = spec.shape[..] {
                ranges.extend([(row - 1, row + 1), (row, 2 * row), (row + 31 * out_width + 1, 2 * row - 1)]);
            }
            for _ in 0..40 {
                let (a, b) = (0..=numel, 0..=numel).new_tree(&mut runner).unwrap().current();
                ranges.push((a.min(b), a.max(b)));
            }
            for (start, end) in ranges {
                let part = directory.read(spec.parameter, start..end).unwrap();
                assert_eq!(part.kind(), whole.kind());
                assert!(part.equal(&flat.narrow(0, start, end - start)), "{layout}: {name} {start}..{end}");
            }
            assert!(directory.read(spec.parameter, 0..numel + 1).is_err());
        }
    }
}

#[test]
fn every_mxfp4_code_and_scale_decodes_as_in_transformers() {
    let table = read(&golden("table.safetensors"));
    // A model whose down projection is the table: 255 outputs of one MXFP4 block.
    let dir = copy_of("huggingface");
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in
        [("hidden_size", 255), ("intermediate_size", 32), ("num_local_experts", 1), ("num_hidden_layers", 1)]
    {
        config[key] = value.into();
    }
    config["layer_types"] = serde_json::Value::Null;
    fs::write(&path, config.to_string()).unwrap();
    let shape = Model {
        vocab_size: Some(24),
        hidden_size: 255,
        intermediate_size: 32,
        num_local_experts: 1,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        ..Model::default()
    };
    let parameter = Parameter::Block { layer: 0, parameter: BlockParameter::DownWeight };
    let down = parameter.name();
    let mut stored: Vec<(String, Tensor)> = Weights::new(&shape).0.into_iter().collect();
    stored.retain(|(name, _)| *name != down);
    stored.push((format!("{down}_blocks"), table["blocks"].shallow_clone()));
    stored.push((format!("{down}_scales"), table["scales"].shallow_clone()));
    Tensor::write_safetensors(&stored, dir.path().join("model.safetensors")).unwrap();
    let loaded = HfDirectory::open(dir.path()).unwrap().load(parameter).unwrap();
    assert!(loaded.equal(&table["dense"]));
}

#[test]
fn a_whole_or_sharded_export_is_read_back_bit_for_bit() {
    let model = model();
    let mut weights = Weights::new(&model);
    for (dtype, kind) in
        [(ExportDtype::F32, Kind::Float), (ExportDtype::Bf16, Kind::BFloat16), (ExportDtype::F16, Kind::Half)]
    {
        for max_shard_bytes in [u64::MAX, 20_000, 1] {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().join("export");
            let options = options(dtype, max_shard_bytes);
            let files = export(&out, &model, &mut weights, &tokenizer(), &options).unwrap();
            let mut names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
            names.push("export.json".into());
            names.sort();
            assert_eq!(names_in(&out), names);
            assert_eq!(names.contains(&"model.safetensors".to_owned()), max_shard_bytes == u64::MAX);
            for file in &files {
                let content = fs::read(out.join(&file.name)).unwrap();
                assert_eq!(file.bytes, content.len() as u64);
                assert_eq!(file.digest, blake3::hash(&content).to_hex().to_string());
            }
            let mut directory = HfDirectory::open(&out).unwrap();
            assert_eq!(directory.model(), &Model { preset: None, ..model.clone() });
            for (name, tensor) in &weights.0 {
                let loaded = directory.load(Parameter::from_name(name).unwrap()).unwrap();
                assert!(loaded.equal(&tensor.to_kind(kind)), "{name} as {dtype:?}");
            }
        }
    }
}

#[test]
fn exported_files_are_readable_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("export");
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    export(&out, &model(), &mut Weights::new(&model()), &tokenizer(), &options(ExportDtype::Bf16, 1))
        .unwrap();
    for name in names_in(&out) {
        assert_eq!(mode(&out.join(&name)), mode(&plain), "{name}");
    }
}

#[test]
fn an_export_replaces_only_an_earlier_export() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("export");
    let model = model();
    let run = |weights: &mut Weights, out: &Path, shard: u64| {
        export(out, &model, weights, &tokenizer(), &options(ExportDtype::F32, shard))
    };
    let (mut first, mut second) = (Weights::new(&model), Weights::new(&model));
    run(&mut first, &out, u64::MAX).unwrap();
    run(&mut second, &out, 1).unwrap();
    let norm = "model.norm.weight";
    let exported = || HfDirectory::open(&out).unwrap().load(Parameter::FinalNorm).unwrap();
    assert!(exported().equal(&second.0[norm]));
    assert!(!out.join("model.safetensors").exists());

    fs::write(out.join("notes.txt"), "mine").unwrap();
    let refused = message(run(&mut first, &out, 1).unwrap_err());
    assert!(refused.contains("notes.txt") && refused.contains("choose another directory"), "{refused}");
    fs::remove_file(out.join("notes.txt")).unwrap();
    let elsewhere = copy_of("huggingface");
    let refused = message(run(&mut first, elsewhere.path(), 1).unwrap_err());
    assert!(refused.contains("model.safetensors"), "{refused}");
    assert!(HfDirectory::open(elsewhere.path()).is_ok());

    // A source that fails leaves the earlier export intact, and no other files.
    first.0.insert(norm.into(), Tensor::zeros([3], (Kind::Float, Device::Cpu)));
    let failed = message(run(&mut first, &out, 1).unwrap_err());
    assert!(failed.contains("model.norm.weight has shape [3], not [64]"), "{failed}");
    assert_eq!(names_in(dir.path()), ["export"]);
    assert!(exported().equal(&second.0[norm]));
}

#[test]
fn f16_overflow_and_tokens_outside_the_vocabulary_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("export");
    let mut weights = Weights::new(&model());
    let _ = weights.0.get_mut("lm_head.weight").unwrap().fill_(1e6);
    let error =
        export(&out, &model(), &mut weights, &tokenizer(), &options(ExportDtype::F16, 1)).unwrap_err();
    assert!(message(error).contains("lm_head.weight has values outside the range of f16"));
    let foreign = TokenizerFiles { eos_token_ids: vec![200_002], ..tokenizer() };
    let error = export(&out, &model(), &mut weights, &foreign, &options(ExportDtype::F32, 1)).unwrap_err();
    assert!(message(error).contains("special token 200002"));
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn every_mismatched_tensor_is_listed() {
    let dir = copy_of("huggingface");
    let path = dir.path().join("model.safetensors");
    let mut tensors = read(&path);
    tensors.remove("model.norm.weight");
    tensors.remove("model.layers.1.mlp.experts.down_proj_scales");
    tensors.insert("model.extra".into(), Tensor::zeros([2], (Kind::Float, Device::Cpu)));
    let floats = tensors["lm_head.weight"].to_kind(Kind::Int);
    tensors.insert("lm_head.weight".into(), floats);
    let swapped = tensors["model.layers.0.self_attn.q_proj.weight"].transpose(0, 1).contiguous();
    tensors.insert("model.layers.0.self_attn.q_proj.weight".into(), swapped);
    let tensors: Vec<_> = tensors.into_iter().collect();
    Tensor::write_safetensors(&tensors, &path).unwrap();
    let error = message(HfDirectory::open(dir.path()).unwrap_err());
    for part in [
        "model.norm.weight is missing",
        "model.layers.1.mlp.experts.down_proj_scales is missing",
        "model.extra is not part of the model",
        "lm_head.weight has unsupported dtype I32",
        "model.layers.0.self_attn.q_proj.weight has shape [32, 16], not [16, 32]",
    ] {
        assert!(error.contains(part), "{part} is not in:\n{error}");
    }
}

#[test]
fn damaged_or_hostile_directories_are_rejected() {
    let open = |dir: &tempfile::TempDir| message(HfDirectory::open(dir.path()).unwrap_err());
    let dir = copy_of("huggingface");
    let path = dir.path().join("model.safetensors");
    let good = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..length]).unwrap();
        assert!(open(&dir).contains("model.safetensors is damaged"), "{length}");
    }
    let mut long_header = good.clone();
    long_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, long_header).unwrap();
    assert!(open(&dir).contains("header length"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    fs::write(&path, pointer).unwrap();
    assert!(open(&dir).contains("this is a Git LFS pointer") && open(&dir).contains("lfs pull"));
    fs::write(&path, [&good[..], &[0; 16]].concat()).unwrap();
    assert!(open(&dir).contains("is damaged"));
    fs::remove_file(&path).unwrap();
    assert!(open(&dir).contains("neither model.safetensors nor"));

    let index = dir.path().join("model.safetensors.index.json");
    for name in ["../model.safetensors", "/etc/model.safetensors", "a/../b.safetensors", "model.bin", ".."] {
        let map = serde_json::json!({ "weight_map": { "lm_head.weight": name } });
        fs::write(&index, map.to_string()).unwrap();
        assert!(open(&dir).contains("not a safetensors file in this directory"), "{name}");
    }
    let map = serde_json::json!({ "weight_map": { "lm_head.weight": "model-00001-of-00002.safetensors" } });
    fs::write(&index, map.to_string()).unwrap();
    assert!(open(&dir).contains("files are missing: model-00001-of-00002.safetensors"));
    // An index left behind by a sharded model, beside a single file saved over it.
    fs::write(&path, &good).unwrap();
    let both = "model.safetensors and model.safetensors.index.json are both here";
    let stale = format!("{both}, but not what the index lists: model-00001-of-00002.safetensors");
    assert!(open(&dir).contains(&stale), "{}", open(&dir));
    fs::write(dir.path().join("model-00001-of-00002.safetensors"), &good).unwrap();
    assert!(open(&dir).contains(&format!("{both}, with other weight files each")));
    fs::remove_file(&path).unwrap();
    assert!(open(&dir).contains("model.norm.weight is not in the index"));
    fs::write(&index, "{").unwrap();
    assert!(open(&dir).contains("is not a valid index"));
    fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(open(&dir).contains("specify a directory with config.json"));
}
