//! Fails at once where there is no libtorch. torch-sys would find out too, with a page of C++ errors, and it is
//! built before oss-run's own build script may speak; this crate depends on nothing and is built first.

#[path = "src/lib.rs"]
#[allow(dead_code, reason = "only the search itself is wanted here")]
mod location;

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    match location::Libtorch::find() {
        Ok(libtorch) => println!("cargo::rerun-if-changed={}", libtorch.lib_dir().display()),
        Err(problem) => {
            println!("cargo::error={problem}");
            std::process::exit(1);
        }
    }
}
