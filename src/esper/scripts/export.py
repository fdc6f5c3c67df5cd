"""Write a trained policy to a file that runs in plain PyTorch, or as ONNX."""

from __future__ import annotations

import argparse
from pathlib import Path

from esper.scripts.flags import add_trust, fail, trusted
from esper.storage import files

USAGE = "esper export RUN [--output FILE.pt2 or FILE.onnx]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or its best")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help=".pt2 (torch.export) or .onnx file (default: RUN/policy.pt2)"
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from esper.policies.export import ExportError, export_policy
    from esper.policies.policy import load_policy
    from esper.storage.store import StoreError

    path = args.output or args.run / "policy.pt2"
    try:
        export_policy(load_policy(args.run, **trusted(args)), path)
    except StoreError as error:
        fail(str(error), "esper export")
    except ExportError as error:
        fail(f"--output {error}", "esper export")
    except OSError as error:
        fail(f"--output {path}: cannot be written: {files.why(error)}", "esper export")
    print(f"policy {path}")
    return 0
