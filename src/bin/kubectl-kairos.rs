//! `kubectl kairos`: kubectl finds this binary by its name, on PATH.

use std::process::ExitCode;

fn main() -> ExitCode {
    kairos_operator::plugin::main()
}
