//! `batonctl completions`: what a shell needs to complete this command's words.

use clap::CommandFactory;
use clap_complete::{Shell, generate};
use serde::Serialize;

use crate::arguments::{Arguments, CompletionShell};
use crate::report::Report;

/// A shell's completions.
#[derive(Debug, Serialize)]
pub struct Completions {
    /// The script that the shell reads.
    script: String,
}

/// Makes the completions of a shell.
pub fn of(shell: CompletionShell) -> Completions {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Zsh => Shell::Zsh,
        CompletionShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    generate(shell, &mut Arguments::command(), "batonctl", &mut script);
    Completions { script: String::from_utf8_lossy(&script).into_owned() }
}

impl Report for Completions {
    fn text(&self) -> String {
        self.script.clone()
    }
}
