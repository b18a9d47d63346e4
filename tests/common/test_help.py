"""Every command and option of both programs explains itself."""

from collections.abc import Iterator

import click
import pytest

import augment.cli
import train.cli


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, with what a user types for each."""
    for word, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


ALL = [*commands(augment.cli.main, "python -m augment"), *commands(train.cli.main, "python -m train")]


@pytest.mark.parametrize(("name", "command"), ALL, ids=[name for name, _ in ALL])
def test_a_command_has_an_example_and_a_help_for_each_option(name: str, command: click.Command) -> None:
    """The example begins as it is typed, and no option is left to its name."""
    # A command keeps the help option that it is first asked for, so with the names that the programs give it.
    text = command.get_help(click.Context(command, info_name=name, help_option_names=["-h", "--help"]))
    assert "Example:" in text
    assert f"  {name}" in text
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]}"
            assert len(option.help.split()) >= 3, f"{name} {option.opts[0]}: {option.help}"
            assert option.help[-1] in ".]", f"{name} {option.opts[0]}: {option.help}"
