"""Share a run on the Hugging Face Hub, with a model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.scripts.flags import fail, say
from esper.storage import files

USAGE = "esper push RUN OWNER/NAME [--private] [--output FOLDER]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run that has ended")
    parser.add_argument("repo", metavar="OWNER/NAME", help="repository on the Hub, which is made if it is missing")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write what would be uploaded to a new folder, and upload nothing"
    )


def run(args: argparse.Namespace) -> int:
    try:
        from esper.hub.remote import check_repo, push
    except ModuleNotFoundError as error:
        fail(f"needs {error.name}; pip install 'esper-simic[hub]'", "esper push")
    from esper.hub.card import make_card
    from esper.hub.shared import CARD, HubError, copy_shared, shared_files

    try:
        check_repo(args.repo)
        names = shared_files(args.run)
        card = make_card(args.run, args.repo, names)
        if args.output is None:
            say(f"pushed   {push(args.run, args.repo, names, card, private=args.private)}")
        else:
            files.make_named_folder(args.output.parent)
            copy_shared(args.run, names, card, args.output)
            say(f"card     {args.output / CARD}\nfiles    {', '.join(names)}")
    except HubError as error:
        fail(str(error), "esper push")
    except OSError as error:
        fail(files.why(error), "esper push")
    return 0
