"""Pushes a run to the Hugging Face Hub, and pulls one. The only module that imports huggingface_hub."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, errors, get_token
from huggingface_hub.utils import httpx, validate_repo_id

from esper import __version__
from esper.hub.shared import NEEDED, HubError, check_sizes, copy_shared, shared
from esper.storage import files

_REPO = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")


def check_repo(repo: str) -> None:
    """Refuse what names no repository.

    Raises:
        HubError: for such a name.
    """
    if not _REPO.fullmatch(repo):
        raise HubError(f"{repo}: must be OWNER/NAME, as on the Hub")
    with _explained(repo):
        validate_repo_id(repo)


def push(run_dir: Path, repo: str, names: list[str], card: str, *, private: bool = False) -> str:
    """Upload `card` and the files `names` of `run_dir` in one commit to `repo`, made if it is missing; returns its URL.

    Files of another run that were pushed there before are removed; what `esper push` does not write stays.

    Raises:
        HubError: when it cannot be uploaded.
        OSError: when a file cannot be read.
    """
    api = _api()
    if get_token() is None:
        raise HubError(f"{repo}: there is no token to write with; log in with  hf auth login  or set HF_TOKEN")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        copy_shared(run_dir, names, card, folder)
        with _explained(repo):
            url = api.create_repo(repo, private=private or None, exist_ok=True)
            there = shared(api.list_repo_files(repo))
            new = shared({"README.md", *names})
            operations = [
                *(CommitOperationDelete(path_in_repo=name) for name in there if name not in new),
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in new),
            ]
            api.create_commit(repo, operations, commit_message="esper push")
    return str(url)


def pull(repo: str, revision: str | None, folder: Path) -> list[str]:
    """Download the run in `repo` into the new folder `folder`, whole or not at all; returns names that were left out.

    Only the files of a run are taken, each as a regular file of limited size. None is opened.

    Raises:
        HubError: when `repo` has no run, or it cannot be downloaded.
        OSError: when `folder` exists or cannot be written.
    """
    api = _api()
    with _explained(repo, revision):
        info = api.model_info(repo, revision=revision, files_metadata=True)
    found = {each.rfilename: each.size for each in info.siblings or []}
    names = shared(found)
    if missing := [name for name in NEEDED if name not in names]:
        raise HubError(f"{repo}: is no run of esper push: it has no {missing[0]}")
    check_sizes({name: found[name] or 0 for name in names}, repo)
    temporary = folder.with_name(files.temporary_name(folder.name))
    files.make_folder(temporary, new=True)
    try:
        for name in names:
            with _explained(repo, revision):
                # Of the commit that was listed, which nobody can change.
                api.hf_hub_download(repo, name, revision=info.sha, local_dir=temporary)
        # A link or a pipe has no size; what was announced may not be what came.
        check_sizes({name: files.size_of(temporary / name, root=temporary) for name in names}, repo)
        files.remove(temporary / ".cache", root=temporary)
        files.rename(temporary, folder.name)
    except BaseException:
        files.remove(temporary)
        raise
    return sorted(set(found) - set(names) - {".gitattributes"})


def _api() -> HfApi:
    return HfApi(library_name="esper-simic", library_version=__version__)


@contextlib.contextmanager
def _explained(repo: str, revision: str | None = None) -> Iterator[None]:
    """An error of the library becomes a `HubError` of one line."""
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise HubError(f"{repo}: HF_HUB_OFFLINE is set, so the Hub is not asked") from None
    except errors.GatedRepoError:
        raise HubError(f"{repo}: is gated; ask for access on its page, then log in with  hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise HubError(f"{repo}: there is no such repository, or it is private and your token cannot read it") from None
    except errors.RevisionNotFoundError:
        raise HubError(f"{repo}: has no revision {revision or constants.DEFAULT_REVISION}") from None
    except errors.HfHubHTTPError as error:
        says = _first_line(error.server_message or error)
        raise HubError(f"{repo}: the Hub answers {error.response.status_code}: {says}") from None
    except (httpx.HTTPError, httpx.InvalidURL, errors.LocalEntryNotFoundError) as error:
        endpoint = constants.ENDPOINT
        raise HubError(f"{repo}: {endpoint} cannot be reached: {_first_line(error)}") from None
    except OSError as error:
        # The system's own have a file and a reason; those of the library are text of several lines.
        if error.strerror:
            raise
        raise HubError(f"{repo}: {_first_line(error)}") from None
    # For a name that no repository can have, and for an answer that is none of the Hub.
    except (ValueError, LookupError, TypeError) as error:
        raise HubError(f"{repo}: {_first_line(error)}") from None


def _first_line(error: object) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
