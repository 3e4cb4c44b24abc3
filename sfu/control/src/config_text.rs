//! Reading configuration files: errors that name the line and the fault, and never quote the file.

use serde::de::DeserializeOwned;

/// What is wrong with a configuration file. The text holds no values of it: the file holds secrets, and errors reach logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ConfigTextError {
    /// Line, from 1.
    pub line: usize,
    /// The fault.
    pub what: String,
}

/// Parses TOML.
///
/// # Errors
/// See [`ConfigTextError`].
pub fn from_toml<T: DeserializeOwned>(text: &str) -> Result<T, ConfigTextError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|b| *b == b'\n').count();
        let what = match error.message() {
            quoting if quoting.starts_with("invalid type") || quoting.starts_with("invalid value") => {
                "a value of a wrong type"
            }
            message => message,
        };
        ConfigTextError { line, what: what.to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn errors_name_the_line_and_quote_nothing() {
        for text in [
            "[keys]\na = \"hush-hush",
            "[keys]\na = \"hush-hush\" x",
            "[keys]\na = [\"hush-hush\"]",
            "\na = \"hush-hush\"",
        ] {
            let error = from_toml::<HashMap<String, HashMap<String, String>>>(text).unwrap_err();
            assert_eq!(error.line, 2, "{error}");
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }
}
