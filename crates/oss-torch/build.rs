//! Compiles the C++ bridge and tells the linker and the loader where libtorch is.
//!
//! Every failure is a one-line message that ends with the fix.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const BRIDGE: [&str; 2] = ["src/bridge.cpp", "src/c10d.cpp"];
const HEADERS: [&str; 2] = ["src/guarded.hpp", "src/declarations"];

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-env-changed=OSS_RUN_DIST");
    for source in BRIDGE.iter().chain(&HEADERS) {
        println!("cargo::rerun-if-changed={source}");
    }
    if let Err(problem) = build() {
        println!("cargo::error={problem}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let libtorch = find_libtorch()?;
    println!("cargo::rerun-if-changed={}", libtorch.join("lib").display());
    let cuda = if cfg!(feature = "cuda") { Some(Cuda::find(&libtorch)?) } else { None };
    compile_bridge(&libtorch, cuda.as_ref())?;
    link(&libtorch, cuda.as_ref());
    Ok(())
}

/// The directory that `LIBTORCH` names; `.cargo/config.toml` sets it to what `make setup` linked.
fn find_libtorch() -> Result<PathBuf, String> {
    let named = env::var_os("LIBTORCH")
        .map(PathBuf::from)
        .ok_or("LIBTORCH is not set; build inside the repository, after `make setup`")?;
    // The link in the repository may be moved or pointed to another build of libtorch; a program keeps the libraries it
    // was built with.
    let libtorch = named.canonicalize().unwrap_or_else(|_| named.clone());
    if libtorch.join("lib/libtorch_cpu.so").exists() && libtorch.join("include/ATen").is_dir() {
        Ok(libtorch)
    } else {
        Err(format!(
            "no libtorch at {}; run `make setup`, or set LIBTORCH to an existing one",
            named.display()
        ))
    }
}

/// The CUDA headers and runtime that belong to a libtorch build.
struct Cuda {
    include_dirs: Vec<PathBuf>,
    lib_dir: PathBuf,
    /// File name of the runtime, such as `libcudart.so.13`.
    runtime: String,
}

impl Cuda {
    /// The wheels unpacked next to libtorch, else the toolkit at `CUDA_HOME`, else the one at `/usr/local/cuda`.
    fn find(libtorch: &Path) -> Result<Self, String> {
        if !libtorch.join("lib/libtorch_cuda.so").exists() {
            return Err(format!(
                "the feature `cuda` needs a CUDA build of libtorch, but {} is CPU-only; run `CUDA=1 make setup`",
                libtorch.display()
            ));
        }
        let wheels = libtorch.with_file_name("nvidia");
        let toolkits = [
            Some(wheels.join("cu13")),
            env::var_os("CUDA_HOME").map(PathBuf::from),
            Some("/usr/local/cuda".into()),
        ];
        for toolkit in toolkits.into_iter().flatten() {
            for lib_dir in [toolkit.join("lib"), toolkit.join("lib64")] {
                if let Some(runtime) = cuda_runtime(&lib_dir) {
                    let include = toolkit.join("include");
                    let include_dirs =
                        vec![include.clone(), include.join("cccl"), wheels.join("nccl/include")];
                    return Ok(Self { include_dirs, lib_dir, runtime });
                }
            }
        }
        Err("no CUDA runtime found for the feature `cuda`; run `CUDA=1 make setup`, or set CUDA_HOME to a toolkit".into())
    }
}

/// The runtime's file name with only the major version, which is the name that programs link to.
fn cuda_runtime(lib_dir: &Path) -> Option<String> {
    fs::read_dir(lib_dir)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with("libcudart.so."))
        .min_by_key(String::len)
}

fn compile_bridge(libtorch: &Path, cuda: Option<&Cuda>) -> Result<(), String> {
    let include = libtorch.join("include");
    let mut header_dirs =
        // Stubs for headers that the wheels lack come first.
        vec!["src/declarations".into(), include.clone(), include.join("torch/csrc/api/include")];
    let mut bridge = cc::Build::new();
    bridge.cpp(true).std("c++17").define("_GLIBCXX_USE_CXX11_ABI", "1").files(BRIDGE);
    // libtorch's parallel loops are templates: without this they would compile to serial loops here.
    bridge.flag("-fopenmp");
    if let Some(cuda) = cuda {
        bridge.define("OSS_RUN_CUDA", None);
        header_dirs.push("src/declarations/cuda".into());
        header_dirs.extend(cuda.include_dirs.iter().cloned());
    }
    // Treated as system headers, so that their warnings are silent and ours stay visible.
    for directory in header_dirs {
        bridge.flag("-isystem").flag(directory);
    }
    bridge.try_compile("oss_run_bridge").map_err(|error| format!("{BRIDGE:?} does not compile: {error}"))
}

fn link(libtorch: &Path, cuda: Option<&Cuda>) {
    let lib_dir = libtorch.join("lib");
    println!("cargo::rustc-link-search=native={}", lib_dir.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    link_openmp(&lib_dir);
    // An installed program ships with its libraries; one in target/ uses those that it was built with. A program built
    // by `make dist` contains no path of this machine.
    let mut arguments = vec![run_path(Path::new("$ORIGIN/../lib/oss-run"))];
    let is_local = env::var_os("OSS_RUN_DIST").is_none();
    arguments.extend(is_local.then(|| run_path(&lib_dir)));
    if let Some(cuda) = cuda {
        println!("cargo::rustc-link-search=native={}", cuda.lib_dir.display());
        println!("cargo::rustc-link-lib=c10_cuda");
        println!("cargo::rustc-link-lib=dylib:+verbatim={}", cuda.runtime);
        arguments.extend(is_local.then(|| run_path(&cuda.lib_dir)));
        // libtorch_cuda registers its kernels when it is loaded, and nothing references it: without this the linker
        // would drop it as unused.
        arguments.extend(["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"].map(str::to_owned));
        // The loader finds libtorch_cuda's own dependencies (cuBLAS, cuDNN, NCCL) through libtorch_cuda's run path.
        arguments.push("-Wl,--unresolved-symbols=ignore-in-shared-libs".to_owned());
    }
    for argument in &arguments {
        println!("cargo::rustc-link-arg={argument}");
    }
    // For the packages that depend on this one: see `link.rs`.
    println!("cargo::metadata=LINK_ARGS={}", arguments.join("\t"));
}

/// The OpenMP runtime that ships with libtorch, so that there is one thread pool; the compiler's if there is none.
fn link_openmp(lib_dir: &Path) {
    let names = fs::read_dir(lib_dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    match names.filter(|name| name.starts_with("libgomp") && name.contains(".so")).min() {
        Some(name) => println!("cargo::rustc-link-lib=dylib:+verbatim={name}"),
        None => println!("cargo::rustc-link-lib=gomp"),
    }
}

fn run_path(directory: &Path) -> String {
    format!("-Wl,-rpath,{}", directory.display())
}
