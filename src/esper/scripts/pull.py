"""Download a run that was shared on the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.runs.folder import BEST
from esper.scripts.flags import fail, say
from esper.storage import files
from esper.system.shell import quoted

USAGE = "esper pull OWNER/NAME[@REVISION] [FOLDER]"

_MOST_NAMES = 5


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("repo", metavar="OWNER/NAME[@REVISION]", help="repository on the Hub; branch, tag or commit")
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="new folder (default: NAME)")


def run(args: argparse.Namespace) -> int:
    try:
        from esper.hub.remote import check_repo, pull
    except ModuleNotFoundError as error:
        fail(f"needs {error.name}; pip install 'esper-simic[hub]'", "esper pull")
    from esper.hub.shared import HubError

    repo, at, revision = args.repo.partition("@")
    if at and not revision:
        fail(f"{args.repo}: names no revision behind its @", "esper pull")
    try:
        check_repo(repo)
        folder = args.folder or Path(repo.partition("/")[2])
        if not folder.name or files.is_there(folder):
            fail(f"{folder}: exists; name a new folder", "esper pull")
        files.make_named_folder(folder.parent)
        left_out = pull(repo, revision or None, folder)
    except HubError as error:
        fail(str(error), "esper pull")
    except OSError as error:
        fail(files.why(error), "esper pull")
    if left_out:
        more = f" and {len(left_out) - _MOST_NAMES:,} more" if len(left_out) > _MOST_NAMES else ""
        say(f"left out {', '.join(f'{name:.60}' for name in left_out[:_MOST_NAMES])}{more}: no files of a run")
    say(f"pulled   {folder}\nnext     esper evaluate {quoted(folder)}\n         esper report {quoted(folder)}")
    if files.is_there(folder / BEST / "policy.json", root=folder):
        say(f"         esper evaluate {quoted(folder / BEST)}")
    return 0
