//! Build script of every package whose programs or tests load libtorch: passes on to the linker what `oss-torch` found.
//!
//! Cargo gives link arguments to the targets of the package that prints them alone, so that each prints them itself.

#![expect(clippy::print_stdout, reason = "Cargo reads what a build script prints")]

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_OSS_RUN_BRIDGE_LINK_ARGS");
    let arguments = std::env::var("DEP_OSS_RUN_BRIDGE_LINK_ARGS").unwrap_or_default();
    for argument in arguments.split('\t').filter(|argument| !argument.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
}
