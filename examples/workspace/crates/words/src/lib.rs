//! Words, and how many there are.

include!(concat!(env!("OUT_DIR"), "/dictionary.rs"));

/// The number of words in `text`.
pub fn count(text: &str) -> usize {
    text.split_whitespace().count()
}

#[cfg(test)]
mod tests {
    use super::{count, DICTIONARY};

    #[test]
    fn counts_what_is_between_spaces() {
        assert_eq!(count(" a  bc d\n"), 3);
    }

    #[test]
    fn the_build_script_sorts_the_dictionary() {
        assert!(DICTIONARY.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
