//! Build script of every package whose programs or tests load libtorch: passes the linker arguments that `oss-torch`
//! found.
//!
//! Cargo applies link arguments only to the targets of the package that prints them, so each package prints them
//! itself.

#![expect(clippy::print_stdout, reason = "Cargo reads what a build script prints")]

fn main() {
    println!("cargo::rerun-if-env-changed=DEP_OSS_RUN_BRIDGE_LINK_ARGS");
    let arguments = std::env::var("DEP_OSS_RUN_BRIDGE_LINK_ARGS").unwrap_or_default();
    for argument in arguments.split('\t').filter(|argument| !argument.is_empty()) {
        println!("cargo::rustc-link-arg={argument}");
    }
}
