//! The `starling` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// sled allocates every key and value of a page on its own, on one thread, and frees them on another. glibc's allocator
/// spends a quarter of a node's time on that and keeps twice the memory.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    starling::cli::main()
}
