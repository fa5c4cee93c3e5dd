"""norn version, norn completion"""

from __future__ import annotations

import argparse

from norn import __version__
from norn.cli.context import Context

_BASH = """\
_norn() {{
    local current=${{COMP_WORDS[COMP_CWORD]}}
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    elif [[ $current == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{options}
        esac
    elif [ "$COMP_CWORD" -eq 2 ] || [ "${{COMP_WORDS[1]}}" = rollback ]; then
        local apps=$(norn apps -o text --quiet 2>/dev/null | awk 'NR > 1 {{print $1}}')
        COMPREPLY=($(compgen -W "$apps" -- "$current"))
    fi
}}
complete -F _norn norn
"""


def add_version(parser: argparse.ArgumentParser) -> None:
    parser.description = "The version."
    parser.set_defaults(run=run_version)


def add_completion(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a completion script."
    parser.epilog = (
        "examples:\n"
        "  norn completion bash > /etc/bash_completion.d/norn\n"
        "  norn completion zsh > ~/.zfunc/_norn\n"
        "  norn completion fish > ~/.config/fish/completions/norn.fish"
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=run_completion)


def run_version(context: Context) -> int:
    context.printer.result({"version": __version__}, lambda: f"norn {__version__}")
    return 0


def run_completion(context: Context) -> int:
    print(script(context.args.shell), end="")
    return 0


def script(shell: str) -> str:
    """The completion script: commands, their options, and the names of apps as the server knows them."""
    from norn.cli.main import COMMANDS, parser_for

    options = {
        name: sorted(flag for flag in parser_for(name)._option_string_actions if flag.startswith("--"))
        for name in COMMANDS
    }
    if shell == "fish":
        lines = [
            f"complete -c norn -f -n __fish_use_subcommand -a {name} -d '{command.summary.replace(chr(39), '')}'"
            for name, command in COMMANDS.items()
        ]
        lines += [
            f"complete -c norn -n '__fish_seen_subcommand_from {name}' -l {flag[2:]}"
            for name, flags in options.items()
            for flag in flags
        ]
        return "\n".join(lines) + "\n"
    cases = "\n".join(
        f'            {name}) COMPREPLY=($(compgen -W "{" ".join(flags)}" -- "$current"));;'
        for name, flags in options.items()
    )
    bash = _BASH.format(commands=" ".join(COMMANDS), options=cases)
    return bash if shell == "bash" else f"#compdef norn\nautoload -U +X bashcompinit && bashcompinit\n{bash}"
