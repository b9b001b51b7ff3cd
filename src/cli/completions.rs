//! `starling completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::failure::Done;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  starling completions bash > ~/.local/share/bash-completion/completions/starling
  starling completions zsh > ~/.zfunc/_starling
  starling completions fish > ~/.config/fish/completions/starling.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    /// Runs it.
    pub(crate) fn run(self) -> Done {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "starling", &mut text);
        super::output::line(String::from_utf8_lossy(&text).trim_end());
        Ok(())
    }
}
