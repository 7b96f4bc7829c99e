//! Where libtorch and the CUDA toolkit beside it lie on this machine. Every error is one line that ends with the fix.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A libtorch that the environment variable `LIBTORCH` names; `.cargo/config.toml` sets it to what the set-up linked.
pub struct Libtorch {
    root: PathBuf,
}

/// The CUDA headers and libraries that go with a libtorch.
pub struct Cuda {
    /// For the compiler.
    pub include_dirs: Vec<PathBuf>,
    /// Where the CUDA runtime lies.
    pub lib_dir: PathBuf,
    /// File name of the CUDA runtime, such as `libcudart.so.13`.
    pub runtime: String,
}

impl Libtorch {
    /// The libtorch that `LIBTORCH` names, with its links resolved.
    ///
    /// # Errors
    /// A message when it is unset or names a directory without libtorch.
    pub fn find() -> Result<Self, String> {
        let named = env::var_os("LIBTORCH")
            .map(PathBuf::from)
            .ok_or("LIBTORCH is not set; build inside the repository, after `make setup`")?;
        let root = named.canonicalize().unwrap_or_else(|_| named.clone());
        let has_libtorch = root.join("lib/libtorch_cpu.so").exists() && root.join("include/ATen").is_dir();
        if has_libtorch {
            Ok(Self { root })
        } else {
            Err(format!(
                "no libtorch at {}; run `make setup`, or set LIBTORCH to an existing one",
                named.display()
            ))
        }
    }

    /// For the compiler.
    pub fn include_dirs(&self) -> [PathBuf; 2] {
        let include = self.root.join("include");
        [include.clone(), include.join("torch/csrc/api/include")]
    }

    /// For the linker and the loader.
    pub fn lib_dir(&self) -> PathBuf {
        self.root.join("lib")
    }

    /// The CUDA toolkit: the wheels unpacked beside this libtorch, else `CUDA_HOME`, else `/usr/local/cuda`.
    ///
    /// # Errors
    /// A message when this libtorch is for CPUs only, or no toolkit is found.
    pub fn cuda(&self) -> Result<Cuda, String> {
        if !self.lib_dir().join("libtorch_cuda.so").exists() {
            return Err(format!(
                "the feature `cuda` needs libtorch's CUDA half and {} is for CPUs only; run `CUDA=1 make setup`",
                self.root.display()
            ));
        }
        let wheels = self.root.with_file_name("nvidia");
        let toolkits = [
            Some(wheels.join("cu13")),
            env::var_os("CUDA_HOME").map(PathBuf::from),
            Some(PathBuf::from("/usr/local/cuda")),
        ];
        for toolkit in toolkits.into_iter().flatten() {
            for lib_dir in [toolkit.join("lib"), toolkit.join("lib64")] {
                if let Some(runtime) = cuda_runtime(&lib_dir) {
                    let include = toolkit.join("include");
                    let include_dirs =
                        vec![include.clone(), include.join("cccl"), wheels.join("nccl").join("include")];
                    return Ok(Cuda { include_dirs, lib_dir, runtime });
                }
            }
        }
        Err("the feature `cuda` found no CUDA runtime; run `CUDA=1 make setup`, or set CUDA_HOME to a toolkit".into())
    }
}

/// The library's file name with its major version, which is what programs are linked to.
fn cuda_runtime(lib_dir: &Path) -> Option<String> {
    fs::read_dir(lib_dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("libcudart.so."))
        .min_by_key(String::len)
}
