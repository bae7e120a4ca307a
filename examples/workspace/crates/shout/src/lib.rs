//! A procedural macro without dependencies: a library that the compiler itself loads.

use proc_macro::{TokenStream, TokenTree};

/// Gives a unit struct `SHOUTED`, its own name in lower case with a mark.
#[proc_macro_derive(Shout)]
pub fn shout(input: TokenStream) -> TokenStream {
    let mut tokens = input.into_iter();
    let named = tokens.any(|token| matches!(&token, TokenTree::Ident(word) if word.to_string() == "struct"));
    match tokens.next() {
        Some(TokenTree::Ident(name)) if named => {
            let shouted = format!("{}!", name.to_string().to_lowercase());
            format!("impl {name} {{ pub const SHOUTED: &'static str = {shouted:?}; }}")
        }
        _ => "compile_error!(\"Shout is for structs\");".to_string(),
    }
    .parse()
    .expect("the text above is Rust")
}
