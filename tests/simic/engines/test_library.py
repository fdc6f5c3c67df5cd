"""Getting kernels: many processes at once, compilers that fail, file systems that cannot be used."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from esper.simic.engines.native import cache, library
from kernels import ANSWER, DEADLINE, LOAD, Place, Ran


class TestStartsAtTheSameTime:
    def test_compile_once(self, place: Place, made: Path) -> None:
        place.compile_by(f'sleep 0.5; cp {made} "$output"')
        processes = [place.start() for _ in range(8)]
        results = [process.communicate(timeout=DEADLINE) for process in processes]
        assert results == [(f"{ANSWER}\n", "")] * 8
        assert place.compilations() == 1

    def test_one_that_is_killed_lets_the_next_one_compile(self, place: Place, made: Path) -> None:
        pid = place.root / "pid"
        place.compile_by(f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 1000")
        with place.start() as process:
            while not pid.exists():
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
        place.compile_by(f'cp {made} "$output"')
        try:
            assert place.load() == Ran(ANSWER, "")
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)

    def test_one_does_not_wait_for_ever(self, place: Place) -> None:
        opened = cache.open_cache
        with opened(place.cache) as first, opened(place.cache) as second, first.lock(0), second.lock(0.1):
            pass

    def test_without_locks_all_is_as_with_them(self, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_locks(*arguments: int) -> None:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr("fcntl.flock", no_locks)
        assert str(library.load_library().library.esper_learner()) == ANSWER
        assert here.kept()


class TestCompiler:
    @pytest.mark.parametrize(
        ("script", "reason"),
        [
            ("echo out of luck >&2; exit 1", "cxx failed: out of luck"),
            ("exit 3", "cxx failed: no message"),
            ("kill -9 $$", "cxx failed: killed by signal 9"),
            ("true", "cxx made failed: .*No such file"),
            (': > "$output"', "cxx made failed: .*file too short"),
            ('head -c 9999 /dev/urandom > "$output"', "cxx made failed: .*invalid ELF header"),
            ('echo "int main() {}" | g++ -shared -fPIC -x c++ - -o "$output"', "cxx made failed: .*esper_learner"),
            ('mkdir "$output"', "cxx made failed: .*cannot read file data"),
        ],
    )
    def test_that_fails_is_named_and_asked_once(self, here: Place, script: str, reason: str) -> None:
        here.compile_by(script)
        for _ in range(2):
            with pytest.raises(library.BuildError, match=reason):
                library.load_library()
        assert here.compilations() == 1
        assert not [*here.cache.iterdir(), *here.temporary.iterdir()]

    def test_that_writes_a_part_crashes_nothing(self, here: Place, made: Path) -> None:
        here.compile_by(f'head -c {made.stat().st_size // 4} {made} > "$output"')
        with pytest.raises(library.BuildError, match=r"loading what .*cxx made failed"):
            library.load_library()
        assert not list(here.cache.iterdir())

    def test_that_hangs_is_ended_with_all_its_processes(self, here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(library, "_PATIENCE", 0.5)
        here.compile_by("sleep 1000 & wait")
        with pytest.raises(library.BuildError, match=r"cxx failed: not done after 0\.5 s"):
            library.load_library()

    def test_that_is_no_command(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "g++ 'quoted")
        with pytest.raises(library.BuildError, match="CXX = g\\+\\+ 'quoted is no command: No closing quotation"):
            library.load_library()


def mounted(*mounts: tuple[str, Path]) -> list[str]:
    """The command that runs what follows it with a tmpfs with these options at each path."""
    script = " && ".join(f"mount -t tmpfs -o {options} tmpfs {path}" for options, path in mounts)
    users = () if os.geteuid() == 0 else ("--map-root-user", "--user")
    return ["unshare", "--mount", *users, "sh", "-c", f'{script} && exec "$0" "$@"']


class TestMounts:
    """Real file systems, for one process and its children."""

    @pytest.fixture(autouse=True)
    def _can_mount(self, place: Place) -> None:
        place.cache.parent.mkdir()
        try:
            done = subprocess.run([*mounted(("size=1m", place.root)), "true"], check=False, capture_output=True)
        except FileNotFoundError:
            pytest.skip("this machine has no unshare")
        if done.returncode:
            pytest.skip("this machine does not let its users mount a tmpfs")

    TWICE = f"{LOAD}\nlibrary._load.cache_clear()\n{LOAD}"

    @pytest.mark.parametrize("which", ["cache", "tmp"])
    def test_one_folder_without_programs_is_no_hindrance(self, place: Place, which: str) -> None:
        mount = mounted(("noexec,size=4m,mode=700", place.root / which))
        assert place.load(*mount, code=self.TWICE) == Ran(f"{ANSWER}\n{ANSWER}", "")
        assert place.compilations() == 1

    def test_no_folder_with_programs(self, place: Place) -> None:
        both = [("noexec,size=4m,mode=700", place.root / name) for name in ("cache", "tmp")]
        out, err = place.load(*mounted(*both))
        assert out == (
            "refused: there is no folder to load compiled kernels from: "
            f"{place.temporary} is mounted noexec, {place.cache} is mounted noexec"
        )
        assert (err, place.compilations()) == ("", 0)

    def test_auto_goes_on_in_torch_and_others_are_refused(self, place: Place) -> None:
        place.environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
        both = [("noexec,size=4m,mode=700", place.root / name) for name in ("cache", "tmp")]
        code = f"""
from esper.scripts.train import main
flags = "--env CartPole-v1 --preset none --num-envs 2 --num-steps 8 --total-timesteps 1e6 --hidden-sizes 4 --quiet"
flags += " --max-minutes 0.01 --no-picture --no-tensorboard"  # long enough for auto to consider torch.compile
for engine in ("auto", "native", "torch"):
    try:
        print(engine, main(["ppo", *flags.split(), "--compile", engine, "--run-dir", "{place.root}/runs/" + engine]))
    except SystemExit as exit:
        print(engine, exit.code)
"""
        out, err = place.load(*mounted(*both), code=code)
        reason = "there is no folder to load compiled kernels from"
        assert out.splitlines() == ["auto 0", "native 2", "torch 2"]
        assert err.count(f"{reason}: {place.temporary} is mounted noexec") == 2
        assert err.count("updates run several times slower") == 1
        assert "use auto, torch or off" in err
        assert f"needs TORCHINDUCTOR_CACHE_DIR that is not mounted noexec, as {place.temporary}/torchinductor_" in err
        assert "Traceback" not in err

    def test_a_home_that_is_read_only(self, place: Place) -> None:
        out, err = place.load(*mounted(("ro", place.root / "cache")))
        assert out == ANSWER
        assert f"Read-only file system: '{place.cache}'): they are compiled for this run alone" in err

    def test_kernels_on_a_file_system_that_is_read_only_are_loaded(self, place: Place) -> None:
        place.load()
        path = place.root / "cache"
        remount = f'mount --bind {path} {path} && mount -o remount,ro,bind {path} && exec "$0" "$@"'
        command = mounted()
        command[-1] = remount
        assert place.load(*command) == Ran(ANSWER, "")
        assert place.compilations() == 1

    def test_a_full_disk(self, place: Place) -> None:
        out, err = place.load(*mounted(("size=8k,mode=700", place.root / "cache")))
        assert out == ANSWER
        assert "No space left on device): they are compiled for this run alone" in err
