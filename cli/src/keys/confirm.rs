//! Asking before something is changed.

use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};

/// `y` or `yes`.
pub(crate) fn agreed(question: &str) -> Result<bool> {
    let answer = ask(question, "[y/N] ")?.to_ascii_lowercase();
    Ok(told(["y", "yes"].contains(&answer.as_str())))
}

/// The word itself: what can't be undone is not agreed to by habit.
pub(crate) fn typed(question: &str, word: &str) -> Result<bool> {
    Ok(told(ask(question, "")? == word))
}

fn ask(question: &str, hint: &str) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} There is no terminal to ask on: say --yes");
    }
    eprint!("{question} {hint}");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn told(is_agreed: bool) -> bool {
    if !is_agreed {
        eprintln!("nothing was changed");
    }
    is_agreed
}
