//! Prints docs/ERRORS.md from the table of errors; `cargo xtask docs` keeps the committed page equal to it.
#![expect(clippy::print_stdout, reason = "the page goes to stdout")]

use sandcrab_api::ErrorCode;

fn main() {
    println!("# Errors\n");
    println!(
        "Every failure is one JSON object: `code`, `message`, `operation`, `context`, `suggestion`, `httpStatus`,"
    );
    println!("`timestamp`. The code is one of these; the TypeScript package has a class for each.\n");
    println!("This page is generated from the table in `crates/api/src/error.rs` by `cargo xtask docs`.\n");
    println!("| code | status | what to do |");
    println!("|---|---|---|");
    for code in ErrorCode::ALL {
        println!("| `{code}` | {} | {} |", code.status(), code.suggestion());
    }
}
