//! Counts words; every crate of the workspace has a part in it.

use shared_greeting::greeting;
use shout::Shout;

#[derive(Shout)]
struct Words;

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "world".into());
    let text = greeting(&name);
    let mut number = itoa::Buffer::new();
    println!(
        "{text} {} {}, dictionary of {}",
        number.format(words::count(&text)),
        Words::SHOUTED,
        words::DICTIONARY.len()
    );
}
