//! Turns words.txt into a sorted table.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo:rerun-if-changed=words.txt");
    let text = fs::read_to_string("words.txt").expect("words.txt lies beside build.rs");
    let mut words: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    words.sort_unstable();
    let directory = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(
        Path::new(&directory).join("dictionary.rs"),
        format!("/// All known words, sorted.\npub const DICTIONARY: &[&str] = &{words:?};\n"),
    )
    .expect("OUT_DIR is writable");
}
