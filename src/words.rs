//! Fixed sets of words: an enum whose values print and serialise as stable words.
//!
//! Each word is in one place, with its value. The report, messages and the schema use the same one. Must not know what
//! a word means.

/// Defines such an enum: `Name = "word"` for each value. `Display` and serde write the word, and serde reads it.
macro_rules! words {
    ($(#[$of_type:meta])* $vis:vis enum $name:ident { $($(#[$of_value:meta])* $value:ident = $word:literal,)* }) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "internals", derive(schemars::JsonSchema))]
        $vis enum $name {
            $($(#[$of_value])* #[serde(rename = $word)] $value,)*
        }

        impl $name {
            /// Returns the word.
            $vis const fn word(self) -> &'static str {
                match self { $($name::$value => $word,)* }
            }

            /// Returns the value of a word.
            $vis fn from_word(word: &str) -> Option<$name> {
                match word { $($word => Some($name::$value),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

pub(crate) use words;

#[cfg(test)]
mod tests {
    words! {
        /// A colour.
        enum Colour {
            /// Red.
            Red = "red",
            /// Two words.
            DarkBlue = "dark blue",
        }
    }

    #[test]
    fn a_word_is_the_same_in_text_and_json() {
        for (colour, word) in [(Colour::Red, "red"), (Colour::DarkBlue, "dark blue")] {
            assert_eq!(colour.to_string(), word);
            assert_eq!(Colour::from_word(word), Some(colour));
            assert_eq!(serde_json::to_value(colour).unwrap(), word);
            assert_eq!(serde_json::from_value::<Colour>(word.into()).unwrap(), colour);
        }
        assert!(serde_json::from_str::<Colour>("\"green\"").is_err() && Colour::from_word("green").is_none());
    }
}
