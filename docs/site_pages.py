"""What the site has beside docs/: pages of the repository's root, the help of each command and of each setting."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from esper.scripts.train import make_parsers

ROOT = Path(__file__).parent.parent
# What declares a field together with what it means.
DECLARE = ("option", "section", "metric")
# Pages of the root, and what they are called on the site.
ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, name in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    return markdown.replace("<!-- commands -->", commands()) if page.file.src_uri == "commands.md" else markdown


def commands() -> str:
    """A section for each command, one below it for each group of its flags that no command before it has."""
    # argparse cuts its usage at the width of the terminal.
    os.environ["COLUMNS"] = "110"
    _, parsers = make_parsers(help_all=True)
    seen: set[str] = set()
    lines = []
    for name, parser in parsers.items():
        usage, summary, *groups = re.split(r"\n\n(?=\S)", parser.format_help().strip())
        own = [group for group in groups if group.startswith(("positional arguments:", "options:"))]
        lines += [f"## esper {name}", "", summary, "", *as_code("\n\n".join([usage, *own]))]
        shared = []
        for group in groups:
            title, _, flags = group.partition(":\n")
            if group in seen:
                shared.append(title)
            elif group not in own:
                lines += [f"### {name}: {title}", "", *as_code(flags)]
                seen.add(group)
        if shared:
            lines += [f"It also has these flags of `esper ppo`: {', '.join(shared)}.", ""]
    return "\n".join(lines)


def as_code(text: str) -> list[str]:
    return ["```text", text, "```", ""]


class SettingsHelp(griffe.Extension):
    """Documents what a class takes with the help and the default of each `option`, `section` and `metric`."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        declared = [parameter for parameter in cls.parameters if called(parameter.default) in DECLARE]
        if declared and cls.docstring:
            # From the class itself, as some help is composed when it is declared.
            config = getattr(importlib.import_module(cls.module.path), cls.name)
            fields = {field.name: field for field in dataclasses.fields(config)}
            cls.docstring.value += "\n\nParameters:"
            for parameter in declared:
                parameter.default = default_of(parameter.default)
                cls.docstring.value += f"\n    {parameter.name}: {help_of(fields[parameter.name])}"


def called(default: str | griffe.Expr | None) -> str:
    """The function that declares a field, if one does."""
    return str(default.function) if isinstance(default, griffe.ExprCall) else ""


def default_of(declaration: griffe.ExprCall) -> str | griffe.Expr | None:
    """What comes first, but for a metric, which has one by name or none."""
    if called(declaration) != "metric":
        return declaration.arguments[0]
    by_name = (given for given in declaration.arguments if isinstance(given, griffe.ExprKeyword))
    return next((given.value for given in by_name if given.name == "default"), None)


def help_of(field: dataclasses.Field[Any]) -> str:
    """The help of an option, the meaning of a metric; of a section without help, what its class says first."""
    given = field.metadata
    text: str | None = given.get("help") or given.get("help_of_bare_name") or given.get("meaning")
    return text or str(field.default.__doc__).split("\n")[0]
