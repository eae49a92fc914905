//! Command lines: pairs of flag and value.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

/// The flags of a command line, each with its value.
#[derive(Debug)]
pub struct Options(HashMap<String, String>);

impl Options {
    /// Reads `words`, which hold no other flags than `known`.
    ///
    /// # Errors
    ///
    /// A flag that is not known, or without a value.
    pub fn read(mut words: impl Iterator<Item = String>, known: &[&str]) -> Result<Self, String> {
        let mut options = HashMap::new();
        while let Some(flag) = words.next() {
            if !known.contains(&flag.as_str()) {
                return Err(format!("unknown option `{flag}`: expected one of {}", known.join(" ")));
            }
            let value = words.next().ok_or_else(|| format!("`{flag}` lacks a value"))?;
            options.insert(flag, value);
        }
        Ok(Self(options))
    }

    /// Gives the value of `flag`; None if it is not there.
    ///
    /// # Errors
    ///
    /// The value does not read as a `T`.
    pub fn find<T: FromStr>(&self, flag: &str) -> Result<Option<T>, String> {
        let read =
            |text: &String| text.parse().map_err(|_| format!("`{flag}`: `{text}` is not a value of this option"));
        self.0.get(flag).map(read).transpose()
    }

    /// Gives the value of `flag`, or `default`.
    ///
    /// # Errors
    ///
    /// The value does not read as a `T`.
    pub fn get<T: FromStr>(&self, flag: &str, default: T) -> Result<T, String> {
        Ok(self.find(flag)?.unwrap_or(default))
    }
}

/// Ends a process: a problem goes to stderr, after the program's name.
#[must_use]
pub fn exit(program: &str, ended: Result<(), String>) -> ExitCode {
    let Err(problem) = ended else { return ExitCode::SUCCESS };
    // Nobody may be left to read it.
    let _ = writeln!(std::io::stderr(), "{program}: {problem}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Options, String> {
        Options::read(line.split_whitespace().map(str::to_owned), &["--port", "--era"])
    }

    #[test]
    fn flags_have_their_values() {
        let options = read("--port 23200").unwrap();
        assert_eq!((options.get("--port", 1), options.find::<String>("--era")), (Ok(23200), Ok(None)));
    }

    #[test]
    fn a_wrong_line_is_told() {
        assert_eq!(read("--prot 1").unwrap_err(), "unknown option `--prot`: expected one of --port --era");
        assert_eq!(read("--port").unwrap_err(), "`--port` lacks a value");
        let problem = "`--port`: `x` is not a value of this option";
        assert_eq!(read("--port x").unwrap().get("--port", 0_u16).unwrap_err(), problem);
    }
}
