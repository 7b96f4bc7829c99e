//! Compiles the C++ side of `src/torch` and tells the linker and the loader where libtorch lies.

use libtorch_location::{Cuda, Libtorch};

const BRIDGE: &str = "src/torch/bridge.cpp";

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=CUDA_HOME");
    println!("cargo::rerun-if-changed={BRIDGE}");
    if let Err(problem) = build() {
        println!("cargo::error={problem}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let libtorch = Libtorch::find()?;
    let cuda = if cfg!(feature = "cuda") { Some(libtorch.cuda()?) } else { None };
    println!("cargo::rerun-if-changed={}", libtorch.lib_dir().display());
    compile_bridge(&libtorch, cuda.as_ref())?;
    link(&libtorch, cuda.as_ref());
    Ok(())
}

fn compile_bridge(libtorch: &Libtorch, cuda: Option<&Cuda>) -> Result<(), String> {
    let mut headers = libtorch.include_dirs().to_vec();
    let mut bridge = cc::Build::new();
    bridge.cpp(true).std("c++17").define("_GLIBCXX_USE_CXX11_ABI", "1").file(BRIDGE);
    if let Some(cuda) = cuda {
        bridge.define("OSS_RUN_CUDA", None);
        headers.extend(cuda.include_dirs.iter().cloned());
    }
    // As system headers they keep their warnings to themselves, and ours stay visible.
    for directory in headers {
        bridge.flag("-isystem").flag(directory);
    }
    bridge.try_compile("oss_run_bridge").map_err(|error| format!("the C++ bridge does not compile: {error}"))
}

fn link(libtorch: &Libtorch, cuda: Option<&Cuda>) {
    let lib_dir = libtorch.lib_dir();
    println!("cargo::rustc-link-search=native={}", lib_dir.display());
    println!("cargo::rustc-link-lib=torch_cpu");
    println!("cargo::rustc-link-lib=c10");
    // An installed program carries its libraries; one in target/ uses those that it was built with.
    run_path("$ORIGIN/../lib/oss-run");
    run_path(&lib_dir.display().to_string());
    if let Some(cuda) = cuda {
        println!("cargo::rustc-link-search=native={}", cuda.lib_dir.display());
        println!("cargo::rustc-link-lib=c10_cuda");
        println!("cargo::rustc-link-lib=dylib:+verbatim={}", cuda.runtime);
        run_path(&cuda.lib_dir.display().to_string());
        // libtorch_cuda registers its kernels when it is loaded and is called by name only through them: without
        // this the linker sees no use of it and drops it.
        for argument in ["-Wl,--no-as-needed", "-ltorch_cuda", "-Wl,--as-needed"] {
            println!("cargo::rustc-link-arg={argument}");
        }
        // What libtorch_cuda itself needs (cuBLAS, cuDNN, NCCL, ...) the loader finds by its own run path.
        println!("cargo::rustc-link-arg=-Wl,--unresolved-symbols=ignore-in-shared-libs");
    }
}

fn run_path(directory: &str) {
    println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
}
