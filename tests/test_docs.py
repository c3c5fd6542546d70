"""The documentation knows everything that the code offers."""

import inspect
import re
from pathlib import Path

import pytest
import typer.main

from steward import cli, config, errors

DOCS = Path(__file__).parent.parent / "docs"
SECTIONS = [
    item
    for item in vars(config).values()
    if inspect.isclass(item) and issubclass(item, config.Section) and item is not config.Section
]
ERRORS = [
    item
    for item in vars(errors).values()
    if inspect.isclass(item) and issubclass(item, errors.StewardError) and item is not errors.StewardError
]


def words(name: str) -> str:
    return re.sub(r"\s+", " ", (DOCS / name).read_text(encoding="utf-8")).replace("\\|", "|")


@pytest.mark.parametrize(
    ("section", "field"), [(section, field) for section in SECTIONS for field in section.model_fields]
)
def test_every_field_is_documented_with_its_own_words(section, field):
    meaning = re.sub(r"\s+", " ", section.model_fields[field].description or "")
    assert meaning, "a field without a docstring"
    assert re.search(rf"\| `{field}` \|[^|]*\| {re.escape(meaning)}", words("model-file.md"))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_documented_with_what_to_do(error):
    name = error.__name__
    assert f"| [`{name}`](#{name.lower()}) | {'yes' if error.retryable else 'no'} |" in words("errors.md")
    assert re.search(rf"### {name} [^#]", words("errors.md"))


def test_every_command_is_documented():
    commands = typer.main.get_command(cli.app).commands
    missing = [name for name in commands if f"`steward {name}" not in words("guide.md")]
    assert missing == []


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert target.startswith("http") or (path.parent / target).exists(), target
