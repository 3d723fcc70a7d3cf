//! A JVM unmaps a library when its class loader is collected; our threads and thread locals would then run
//! into nothing. `nodelete` keeps it mapped.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
