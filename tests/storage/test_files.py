"""The one module that opens the files of a run, and that nothing goes around it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import esper
from esper.storage import files
from esper.storage.trust import unnamed_import

SOURCE = Path(esper.__file__).parent

# Functions, and methods of paths and modules, that open, write, rename or remove what a path leads to, or look at it.
FUNCTIONS = {"open", "load_file", "save_file", "EventsWriter", "SummaryWriter", "EventFileWriter"}
METHODS = {
    *("open", "read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "makedirs", "touch", "unlink", "rmdir"),
    *("rename", "renames", "replace", "remove", "removedirs", "rmtree", "copy2", "copyfile", "copytree", "move"),
    *("symlink", "symlink_to", "link", "hardlink_to", "truncate", "chmod", "iterdir", "glob", "rglob", "scandir"),
    *("listdir", "walk", "fwalk", "stat", "exists", "is_file", "is_dir", "mkfifo", "mknod", "fdopen"),
    *("mkstemp", "mkdtemp", "TemporaryDirectory", "NamedTemporaryFile", "TemporaryFile"),
    *(
        "load",
        "save",
        "loadtxt",
        "savetxt",
        "fromfile",
        "tofile",
        "memmap",
        "savefig",
        "imsave",
        "load_file",
        "save_file",
    ),
    *("FileHandler", "EventsWriter", "SummaryWriter", "EventFileWriter"),
}
# Of these nothing is imported by name: their functions are seen by what they are called on.
MODULES = {"os", "shutil", "tempfile", "io", "builtins"}

CACHE = (
    *("entry.is_dir", "entry.stat", "open", "os.open", "os.replace", "os.scandir", "os.unlink"),
    *("path.mkdir", "path.parent.mkdir", "shutil.rmtree"),
)

# What may do so, and why, by what is called.
ALLOWED = {
    "esper.storage.files": {},  # all
    "esper.runs.presets": {"(resources.files('esper.runs') / 'presets.toml').read_text": "comes with the package"},
    "esper.analysis.page": {"(resources.files('esper.analysis') / name).read_text": "comes with the package"},
    "esper.watch.server": {"(resources.files('esper.watch') / name).read_text": "comes with the package"},
    "esper.envs.registration": {"Path(name).exists": "whether a module that was not found lies in the current folder"},
    "esper.simic.engines.compilers": {"Path(sysconfig.get_path('include'), 'Python.h').exists": "of Python"},
    "esper.simic.engines.native.library": {
        "_SOURCES.iterdir": "come with the package",
        "cache.open": "the user's own cache",
        "path.read_bytes": "come with the package",
        "path.write_bytes": "in a temporary folder of its own",
        "tempfile.TemporaryDirectory": "new, and its name cannot be guessed",
    },
    # All of it is about the user's own cache, which has rules of its own.
    "esper.simic.engines.native.cache": dict.fromkeys(CACHE, "the user's own cache"),
    "esper.scripts.output": {"os.open": "/dev/null"},
    "esper.sweep.local": {"os.open": "/dev/null"},
    # Folders as the user named them; what is in one is opened below it, by esper.storage.files.
    "esper.runs.folder": dict.fromkeys(("path.exists", "there.is_dir"), "--run-dir"),
    "esper.simic.compiling": {"function.__code__.replace": "no file"},
    "esper.runs.train": {"(self.folder / BEST).exists": "for the error that names what is missing"},
    "esper.sweep.away": dict.fromkeys(
        ("tempfile.TemporaryDirectory", "run_dir.parent.mkdir", "run_dir.mkdir", "run_dir.is_dir"),
        "new, and its name cannot be guessed",
    ),
    "esper.hub.remote": {"tempfile.TemporaryDirectory": "new, and its name cannot be guessed"},
    "esper.runs.resume.point": {"run_dir.exists": "for the message that there is nothing"},
    "esper.scripts.ppo": dict.fromkeys(
        ("(folder / BEST).exists", "(folder / 'training.png').exists", "(folder / 'tensorboard').exists"),
        "for the line that names it",
    ),
    "esper.runs.checkpointing": {"self._keeper.save": "a checkpoint, by esper.runs.checkpoint.folder"},
    # A buffer in memory, or a descriptor that esper.storage.files opened.
    "esper.analysis.plots": {"figure.savefig": "a buffer"},
    "esper.analysis.plots_comparison": {"figure.savefig": "a buffer"},
    "esper.analysis.plots_growth": {"figure.savefig": "a buffer"},
    "esper.simic.engines.native.carried": dict.fromkeys(
        ("_PROCESSOR.is_file", "_PROCESSOR.read_text", "path.is_file", "path.read_bytes"),
        "of the system, and of this package",
    ),
    "esper.policies.movies": {
        "images[0].save": "a buffer",
        "path.read_bytes": "in a new folder whose name cannot be guessed",
        "tempfile.TemporaryDirectory": "for a program that writes files alone",
    },
    "esper.policies.export": {
        "torch.export.save": "a buffer",
        "tempfile.TemporaryDirectory": "new, and its name cannot be guessed: the exporter of ONNX writes by name",
        "path.read_bytes": "what it wrote there",
    },
    "esper.telemetry.jsonl": {"open": "the descriptor of the record"},
}


def test_nothing_goes_around_it() -> None:
    around = []
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(("esper", *path.relative_to(SOURCE).with_suffix("").parts))
        found = set(calls(path.read_text()))
        allowed = ALLOWED.get(module, {})
        if module != "esper.storage.files":
            around += [f"{module}: {call}" for call in found - allowed.keys()]
            assert allowed.keys() <= found, f"{module} does not need all that it is allowed"
    assert around == [], around


@pytest.mark.parametrize(
    "source",
    [
        *("open(path)", "io.open(path)", "os.open(path, 0)", "os.fdopen(3)", "path.open('rb')", "path.read_text()"),
        *(
            "path.write_bytes(data)",
            "(folder / 'x').unlink()",
            "old.rename(new)",
            "old.replace(new)",
            "os.replace(a, b)",
        ),
        *("shutil.rmtree(folder)", "np.load(path)", "torch.load(path)", "np.save(path, x)", "figure.savefig(path)"),
        *(
            "safetensors.torch.load_file(path)",
            "load_file(path)",
            "image.save(path)",
            "path.exists()",
            "path.iterdir()",
        ),
        *("tempfile.mkstemp()", "logging.FileHandler(path)", "from os import open as o", "from shutil import rmtree"),
        *("EventsWriter(str(folder))", "tensorboardX.SummaryWriter(folder)", "path.touch()", "os.truncate(path, 0)"),
    ],
)
def test_ways_around_it_are_seen(source: str) -> None:
    assert list(calls(source))


@pytest.mark.parametrize(
    "source", ["files.read(path, 3)", "text.replace('a', 'b')", "dataclasses.replace(config, a=1)"]
)
def test_what_opens_nothing_is_not_taken_for_it(source: str) -> None:
    assert not list(calls(source))


def calls(source: str) -> Iterator[str]:
    """What in `source` opens files, or could."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        # Text and dataclasses have the one, lists the other, which paths do not.
        no_path = (
            name == "replace" and (called == "dataclasses.replace" or (len(node.args) == 2 and called != "os.replace"))
        ) or (name == "remove" and called != "os.remove")
        by_name = isinstance(node.func, ast.Name) and name in FUNCTIONS
        by_method = isinstance(node.func, ast.Attribute) and name in METHODS and not called.startswith("files.")
        if (by_name or by_method) and not no_path:
            yield called


class TestFolders:
    """What the table of tests/policies/strangers does not reach."""

    def test_the_users_own_links_above_a_run_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "runs").symlink_to(tmp_path / "disk")
        files.write(tmp_path / "runs" / "a.json", b"1")
        assert (tmp_path / "disk" / "a.json").read_bytes() == b"1"
        assert files.read(tmp_path / "runs" / "a.json", 1) == b"1"

    def test_below_its_root_none_is(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "best").symlink_to(tmp_path / "elsewhere")
        path = tmp_path / "run" / "best" / "policy.json"
        for action in (
            lambda: files.read(path, 9, root=tmp_path / "run"),
            lambda: files.write(path, b"", root=tmp_path / "run"),
            lambda: files.names_in(path.parent, root=tmp_path / "run"),
            lambda: files.rename(path, "x", root=tmp_path / "run"),
            lambda: files.remove(path, root=tmp_path / "run"),
            lambda: files.make_folder(path.parent, root=tmp_path / "run"),
        ):
            with pytest.raises(OSError, match="is a link") as refused:
                action()
            assert files.why(refused.value) == f"{path.parent}: is a link"
        assert list((tmp_path / "elsewhere").iterdir()) == []

    def test_a_temporary_file_that_is_there_already_is_not_opened(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 16)
        (tmp_path / "victim").write_text("kept")
        (tmp_path / f".a.json.{'0' * 16}.tmp").symlink_to(tmp_path / "victim")
        with pytest.raises(FileExistsError):
            files.write(tmp_path / "a.json", b"new")
        assert (tmp_path / "victim").read_text() == "kept"

    def test_nothing_is_left_of_a_write_that_failed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            files.write(tmp_path / "a.json", b"new")
        assert list(tmp_path.iterdir()) == []

    def test_only_temporary_names_are_taken_for_such(self) -> None:
        assert files.is_temporary(files.temporary_name("config.json"))
        assert not any(map(files.is_temporary, ("config.json", ".a.tmp", ".tmp", "..tmp", ".a.0123456789abcdeg.tmp")))

    def test_a_folder_that_is_removed_takes_nothing_outside_with_it(self, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "kept").touch()
        (tmp_path / "run" / "old").mkdir(parents=True)
        (tmp_path / "run" / "old" / "link").symlink_to(tmp_path / "outside")
        files.remove(tmp_path / "run" / "old")
        assert (tmp_path / "outside" / "kept").exists()
        assert not (tmp_path / "run" / "old").exists()

    def test_runs_are_not_looked_for_behind_links(self, tmp_path: Path) -> None:
        for name in ("a", "b/c"):
            (tmp_path / "arm" / name).mkdir(parents=True)
            (tmp_path / "arm" / name / "events.jsonl").touch()
        (tmp_path / "arm" / "again").symlink_to(tmp_path / "arm")
        (tmp_path / "link").symlink_to(tmp_path / "arm")
        found = sorted(files.find(tmp_path / "link", "events.jsonl"))
        assert found == [tmp_path / "link" / "a", tmp_path / "link" / "b" / "c"]


class TestText:
    def test_json_is_strict(self) -> None:
        assert files.parse_json(b'{"a": [1, 2.5, null, "\\ud83d\\ude00"]}') == {"a": [1, 2.5, None, "\U0001f600"]}
        for data in (
            b"NaN",
            b"1e999",
            b'"\\ud800"',
            b'{"\\udc00": 1}',
            b"[" * 101 + b"]" * 101,
            b"[" * 10**6,
            b"\xff",
            b"",
        ):
            with pytest.raises(ValueError, match=r"."):
                files.parse_json(data)
        assert files.parse_json(b"[" * 99 + b"]" * 99)

    def test_a_terminal_shows_names_and_does_not_obey_them(self) -> None:
        # Colour, title, a line written over, text from right to left, a half of a pair, a C1 control.
        hostile = "a\x1b[31mb\x1b]0;c\x07\rd\u202ee\ud800\x9b"
        shown = files.printable(hostile)
        assert shown == "a\\x1b[31mb\\x1b]0;c\\x07\\rd\\u202ee\\ud800\\x9b"
        assert shown.isprintable()
        assert files.printable("é 漢 ± %\n\t") == "é 漢 ± %\n\t"


class TestNames:
    @pytest.mark.parametrize(
        ("found", "given"),
        [
            ({"env": "CartPole-v1", "encoder": "auto", "env_kwargs": {"continuous": True, "map_name": "4x4"}}, {}),
            ({"env": "ALE/Pong-v5"}, {}),
            ({"env": "torch/CartPole-v1", "encoder": None, "env_kwargs": None}, {}),
            ({"env": "mine:Env-v0", "encoder": "mine:net"}, {"env": "mine:Env-v0", "encoder": "mine:net"}),
            ({"env_kwargs": {"xml_file": "/my/ant.xml"}}, {"env_kwargs": {"xml_file": "/my/ant.xml"}}),
            ({"policy_lr_decay": "linear", "value_lr_decay": "custom", "policy_lr_cycle_decay": 0.5}, {}),
            # A common name stands for those of its components.
            ({"policy_lr_decay": "mine:curve", "value_lr_decay": "mine:curve"}, {"lr_decay": "mine:curve"}),
        ],
    )
    def test_may_be_used(self, found: dict[str, object], given: dict[str, object]) -> None:
        assert unnamed_import(found, given) is None

    @pytest.mark.parametrize(
        ("found", "given", "reason"),
        [
            ({"env": "evil:CartPole-v1"}, {}, "its environment imports 'evil'; if that is right, add --env evil:"),
            ({"env": "evil:CartPole-v1"}, {"env": "mine:CartPole-v1"}, "its environment imports 'evil'"),
            ({"encoder": "subprocess:run"}, {"env": "subprocess:run"}, "its encoder imports 'subprocess'"),
            ({"encoder": "a:b; rm -rf ~"}, {}, "add --encoder 'a:b; rm -rf ~' or --trust"),
            ({"lr_decay": "evil:x"}, {}, "its lr_decay imports 'evil'; if that is right, add --lr-decay evil:x or"),
            ({"clip_coef_decay": "evil:x"}, {"lr_decay": "mine:x"}, "add --clip-coef-decay evil:x or --trust"),
            ({"policy_lr_decay": "evil:x"}, {"env": "evil:x"}, "its policy_lr_decay imports 'evil'"),
            ({"env_kwargs": {"a": [{"b": "../x.xml"}]}}, {}, "its env_kwargs have '../x.xml'"),
            ({"env_kwargs": {"a": "os:system"}}, {"env_kwargs": {"a": "b:c"}}, "its env_kwargs have 'os:system'"),
        ],
    )
    def test_must_be_named_again(self, found: dict[str, object], given: dict[str, object], reason: str) -> None:
        assert reason in str(unnamed_import(found, given))
