"""The page of running and finished runs: real requests to a running server, and who gets no answer."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from esper.scripts.train import main

pytest.importorskip("plotly")

from esper.watch.followed import FollowedRuns
from esper.watch.server import WatchServer

UPDATES = 10
SOURCE = Path(__file__).parents[2] / "src/esper"
SCRIPTS = ("analysis/charts.js", "watch/watch.js")


def train(run_dir: Path, *flags: str) -> Path:
    small = ["--preset", "none", "--compile", "off", "--num-envs", "2", "--num-steps", "16", "--total-timesteps", "320"]
    quiet = ["--quiet", "--no-tensorboard", "--no-picture", "--run-dir", str(run_dir)]
    assert main(["ppo", "--env", "CartPole-v1", *small, *quiet, *flags]) == 0
    return run_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("trained") / "run", "--lr-decay", "cosine", "--eval-every", "5")


@pytest.fixture
def runs(trained: Path, tmp_path: Path) -> Path:
    """A folder with one finished run."""
    (tmp_path / "runs" / "finished").mkdir(parents=True)
    shutil.copy(trained / "events.jsonl", tmp_path / "runs" / "finished")
    return tmp_path / "runs"


@pytest.fixture
def server(runs: Path) -> Iterator[WatchServer]:
    with WatchServer("127.0.0.1", 0, FollowedRuns([runs])) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(
    server: WatchServer, path: str, *, host: str = "127.0.0.1", method: str = "GET"
) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    return answer, answer.read().decode()


def get(server: WatchServer, path: str) -> Any:
    answer, text = request(server, path)
    assert answer.status == 200, text
    return json.loads(text)


def rows(server: WatchServer) -> dict[str, Any]:
    return {Path(row["name"]).name: row for row in get(server, "/api/runs")}


def page_of(server: WatchServer, folder: Path, since: str = "") -> Any:
    return get(server, f"/api/run?name={folder}&since={since}")


def wait_until_read(server: WatchServer, name: str, update: int) -> None:
    """Ask until the record of run `name` is read up to `update`."""
    for _ in range(200):
        if rows(server)[name]["update"] == update:
            return
    raise AssertionError(f"{name} is not read up to update {update}")


def growing(runs: Path, lines: list[str], count: int) -> Path:
    """A run whose record has the first `count` lines, now."""
    folder = runs / "growing"
    folder.mkdir()
    (folder / "events.jsonl").write_text("".join(lines[:count]))
    return folder


def written_now(folder: Path) -> list[str]:
    """The lines of the record in `folder`, as if they were written now."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    late = time.time() - events[-1]["time"]
    return [json.dumps({**event, "time": event["time"] + late}) + "\n" for event in events]


class TestRuns:
    def test_a_finished_run(self, server: WatchServer, runs: Path) -> None:
        row = rows(server)["finished"]
        assert row["env"] == "CartPole-v1"
        assert (row["status"], row["progress"], row["update"], row["env_steps"]) == ("completed", 1.0, 9, 320)
        assert row["phase"] == "decay"
        found = page_of(server, runs / "finished")
        assert found["columns"]["update"] == list(range(UPDATES))
        assert found["columns"]["lr/policy"][0] == pytest.approx(3e-4)
        assert all(found["columns"][name][-1] is not None for name in ("value_loss", "entropy", "steps_per_second"))
        assert [(update, steps) for update, steps, _ in found["evaluations"]] == [(4, 160), (9, 320)]
        changed = dict(found["settings"]["changed"])
        assert changed["lr_decay"] == "cosine"
        assert changed["total_timesteps"] == "320"
        assert "gamma" not in changed
        assert dict(found["settings"]["default"])["gamma"] == "0.99"

    def test_a_run_that_is_being_written(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        updates = [number for number, line in enumerate(lines) if "update_completed" in line]
        folder = growing(runs, lines, updates[2] + 1)
        row = rows(server)["growing"]
        assert (row["status"], row["update"], row["progress"]) == ("running", 2, 0.3)
        assert 0 <= row["seconds_since"] < 60
        found = page_of(server, folder)
        assert (found["first"], found["columns"]["update"]) == (0, [0, 1, 2])
        with (folder / "events.jsonl").open("a") as record:
            record.write("".join(lines[updates[2] + 1 : updates[5]]) + lines[updates[5]][:70])
        more = page_of(server, folder, found["mark"])
        # The line that is being written is waited for.
        assert (more["first"], more["columns"]["update"]) == (3, [3, 4])
        assert more["row"]["status"] == "running"
        with (folder / "events.jsonl").open("a") as record:
            record.write(lines[updates[5]][70:] + "".join(lines[updates[5] + 1 :]))
        rest = page_of(server, folder, more["mark"])
        assert (rest["first"], rest["columns"]["update"]) == (5, [5, 6, 7, 8, 9])
        assert rest["row"]["status"] == "completed"
        assert page_of(server, folder, rest["mark"])["columns"] == {}

    def test_only_what_was_added_is_read(
        self, server: WatchServer, runs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lines = written_now(runs / "finished")
        folder = growing(runs, lines, len(lines) - 1)
        rows(server)
        decoded = list[bytes]()

        def decode(line: bytes) -> Any:
            decoded.append(line)
            return json.loads(line)

        monkeypatch.setattr("esper.telemetry.jsonl.decode", decode)
        with (folder / "events.jsonl").open("a") as record:
            record.write(lines[-1])
        assert rows(server)["growing"]["status"] == "completed"
        assert decoded == [lines[-1].encode()]

    def test_a_run_that_goes_back_to_a_checkpoint_begins_anew(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        folder = growing(runs, lines, len(lines))
        mark = page_of(server, folder)["mark"]
        updates = [number for number, line in enumerate(lines) if "update_completed" in line]
        other = [json.dumps({**json.loads(line), "value_loss": 2.0}) + "\n" for line in lines[updates[3] :]]
        (folder / "events.jsonl").write_text("".join([*lines[: updates[3]], *other[:-1]]))
        found = page_of(server, folder, mark)
        assert found["first"] == 0
        assert found["columns"]["update"] == list(range(UPDATES))
        assert found["columns"]["value_loss"][3:] == [2.0] * 7
        assert found["row"]["status"] == "running"

    def test_a_run_that_was_killed_is_not_called_running(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        hour_ago = [json.dumps({**event, "time": event["time"] - 3600}) + "\n" for event in map(json.loads, lines)]
        growing(runs, hour_ago, len(lines) - 1)
        row = rows(server)["growing"]
        assert row["status"] == "silent"
        assert row["seconds_since"] > 3590

    def test_the_last_anomaly_is_shown(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        updates = [number for number, line in enumerate(lines) if "update_completed" in line]
        for index in (4, 6):
            lines[updates[index]] = json.dumps({**json.loads(lines[updates[index]]), "ratio_max": 50.0}) + "\n"
        folder = growing(runs, lines, len(lines))
        assert rows(server)["growing"]["anomaly"] == "ratio_explosion, update 6"
        ((kind, first, last, count, _),) = page_of(server, folder)["anomalies"]
        assert (kind, first, last, count) == ("ratio_explosion", 4, 6, 2)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("what\n", "line 1 is not JSON"),
            ('{"event": "update_completed"}\n', "does not begin with run_started"),
            ('{"event": "other", "config": [], "time": "x"}\n', "does not begin with run_started"),
            ('{"event": "run_started", "config": {}, "schema": 3}\n', "names no environment"),
            ('{"event": "run_started", "config": 3}\n', "its config is 3"),
        ],
    )
    def test_a_broken_record_has_its_reason_and_others_are_shown(
        self, server: WatchServer, runs: Path, text: str, says: str
    ) -> None:
        (runs / "broken").mkdir()
        (runs / "broken" / "events.jsonl").write_text(text)
        found = rows(server)
        assert found["broken"]["status"] == "unreadable"
        assert says in found["broken"]["error"]
        assert found["finished"]["status"] == "completed"
        assert page_of(server, runs / "broken")["columns"] == {}

    def test_a_record_that_is_broken_in_the_middle_is_shown_up_to_there(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        updates = [number for number, line in enumerate(lines) if "update_completed" in line]
        lines[updates[4]] = lines[updates[4]][:50] + "\n"
        folder = growing(runs, lines, len(lines))
        found = page_of(server, folder)
        assert found["row"]["status"] == "unreadable"
        assert f"line {updates[4] + 1} is not JSON" in found["row"]["error"]
        assert found["columns"]["update"] == [0, 1, 2, 3]

    def test_a_long_run_is_thinned(self, server: WatchServer, runs: Path) -> None:
        lines = written_now(runs / "finished")
        update = json.loads(next(line for line in lines if "update_completed" in line))
        long = [json.dumps({**update, "update": n, "value_loss": float(n % 2)}) + "\n" for n in range(8000)]
        folder = growing(runs, [lines[0], *long], 8001)
        # An answer waits half a second for what is read, and takes what there is.
        wait_until_read(server, "growing", 7999)
        found = page_of(server, folder)
        assert len(found["columns"]["update"]) == len(found["columns"]["lr_phase/policy"]) == 2000
        # Each point is the mean of 4 updates: 0 to 3, and values 0, 1, 0, 1.
        assert found["columns"]["update"][:2] == [1.5, 5.5]
        assert set(found["columns"]["value_loss"]) == {0.5}
        with (folder / "events.jsonl").open("a") as record:
            record.write(json.dumps({**update, "update": 8000}) + "\n")
        wait_until_read(server, "growing", 8000)
        assert page_of(server, folder, found["mark"])["columns"]["update"] == [8000]

    def test_a_record_that_takes_long_to_read_does_not_hold_the_answer(self, runs: Path) -> None:
        lines = written_now(runs / "finished")
        update = json.loads(next(line for line in lines if "update_completed" in line))
        growing(runs, [lines[0], *(json.dumps({**update, "update": n}) + "\n" for n in range(3000))], 3001)
        followed = FollowedRuns([runs])
        for _ in range(2):
            followed.look(0.0)
        rows = {Path(row["name"]).name: row for row in followed.rows()}
        assert rows["finished"]["status"] == "completed"
        assert rows["growing"]["status"] == "reading"
        assert rows["growing"]["update"] < 1000
        for _ in range(40):
            followed.look(0.0)
        rows = {Path(row["name"]).name: row for row in followed.rows()}
        assert (rows["growing"]["status"], rows["growing"]["update"]) == ("running", 2999)

    def test_a_hundred_runs(self, server: WatchServer, runs: Path) -> None:
        for number in range(99):
            shutil.copytree(runs / "finished", runs / f"arm-{number % 9}" / f"seed-{number}")
        assert len(get(server, "/api/runs")) == 100
        # Half a second of reading may not be enough for the first answer.
        for _ in range(100):
            found = get(server, "/api/runs")
            if {row["status"] for row in found} == {"completed"}:
                break
        assert {row["update"] for row in found} == {UPDATES - 1}
        shutil.rmtree(runs / "arm-0")
        # Folders are not searched again at once.
        deadline = time.monotonic() + 20
        while len(get(server, "/api/runs")) != 89:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_record_that_cannot_be_opened_is_tried_again(self, server: WatchServer, runs: Path) -> None:
        record = runs / "finished" / "events.jsonl"
        rows(server)
        record.rename(runs / "away")
        record.mkdir()
        assert (rows(server)["finished"]["status"], rows(server)["finished"]["update"]) == ("unreadable", 9)
        record.rmdir()
        (runs / "away").rename(record)
        assert (rows(server)["finished"]["status"], rows(server)["finished"]["error"]) == ("completed", None)

    def test_links_below_the_folder_are_not_followed(self, server: WatchServer, runs: Path, trained: Path) -> None:
        (runs / "linked").symlink_to(trained)
        (runs / "file").mkdir()
        (runs / "file" / "events.jsonl").symlink_to(trained / "events.jsonl")
        found = rows(server)
        assert set(found) == {"finished", "file"}
        assert "is a link" in found["file"]["error"]


class TestServer:
    def test_the_page_needs_nothing_from_elsewhere(self, server: WatchServer) -> None:
        answer, page = request(server, "/")
        assert answer.status == 200
        for name in re.findall(r'(?:src|href)="([^"#]+)"', page):
            assert request(server, f"/{name}")[0].status == 200, name
        policy = str(answer.getheader("Content-Security-Policy"))
        assert policy.startswith("default-src 'none'; script-src 'self'; connect-src 'self'")
        assert "http" not in page + request(server, "/watch.js")[1].replace("http://www.w3.org/2000/svg", "")

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "localhost:9999", "LOCALHOST:1"])
    def test_its_own_names_are_answered(self, server: WatchServer, host: str) -> None:
        assert request(server, "/api/runs", host=host)[0].status == 200

    @pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "", "["])
    def test_other_names_are_not(self, server: WatchServer, host: str) -> None:
        for path in ("/", "/api/runs", "/plotly.js"):
            answer, text = request(server, path, host=host)
            assert answer.status == 403
            assert "CartPole" not in text

    def test_one_for_all_addresses_is_named_by_an_address(self, runs: Path) -> None:
        with WatchServer("0.0.0.0", 0, FollowedRuns([runs])) as server:
            assert not server.is_local
            assert [server.takes(host) for host in ("10.0.0.1:80", "[fe80::1]", "localhost", "evil.example")] == [
                *(True, True, True, False)
            ]

    @pytest.mark.parametrize(
        "path",
        [
            *("/../../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/followed.py", "/api", "/api/run"),
            *("/api/run?name=", "/api/run?name=../secret", "/api/run?name=/etc", "http://127.0.0.1/x"),
        ],
    )
    def test_nothing_else_is_there(self, server: WatchServer, runs: Path, trained: Path, path: str) -> None:
        shutil.copytree(trained, runs.parent / "secret")
        assert request(server, path)[0].status == 404

    def test_a_run_outside_is_not_there(self, server: WatchServer, runs: Path, trained: Path) -> None:
        for name in (trained, runs / ".." / "runs" / "finished", f"{runs}/finished/"):
            assert request(server, f"/api/run?name={name}")[0].status == 404

    @pytest.mark.parametrize("since", ["0.99999", "7.3", "x.y", "0.-1", "0.²", "."])
    def test_a_mark_of_something_else_is_the_beginning(self, server: WatchServer, runs: Path, since: str) -> None:
        found = get(server, f"/api/run?name={runs / 'finished'}&since={since.replace('²', '%C2%B2')}")
        assert (found["first"], len(found["columns"]["update"])) == (0, UPDATES)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
    def test_only_get(self, server: WatchServer, method: str) -> None:
        assert request(server, "/api/runs", method=method)[0].status == 501

    def test_texts_of_records_are_data(self, server: WatchServer, runs: Path) -> None:
        shutil.copytree(runs / "finished", runs / "<img src=x onerror=alert(1)>\n\x1b\udcff")
        answer, text = request(server, "/api/runs")
        assert answer.getheader("Content-Type") == "application/json; charset=utf-8"
        assert answer.getheader("X-Content-Type-Options") == "nosniff"
        name = json.loads(text)[0]["name"]
        assert name == f"{runs}/<img src=x onerror=alert(1)>\\n\\x1b\\udcff"
        assert page_of(server, Path(quote(name)))["row"]["status"] == "completed"

    @pytest.mark.parametrize("name", SCRIPTS)
    def test_the_scripts_make_no_markup(self, name: str) -> None:
        script = (SOURCE / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", script)

    @pytest.mark.parametrize("name", SCRIPTS)
    @pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
    def test_the_scripts_can_be_read(self, name: str) -> None:
        subprocess.run(["node", "--check", str(SOURCE / name)], check=True)


class TestCommand:
    def test_once_is_a_file_that_needs_nothing(
        self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (runs / "finished").rename(runs / "<!--<script>")
        assert main(["watch", str(runs), "--once", str(tmp_path / "page.html")]) == 0
        assert "page.html" in capsys.readouterr().out
        page = (tmp_path / "page.html").read_text()
        assert not re.search(r'<(?:script|link|img)[^>]* (?:src|href)="', page)
        # The data, three scripts, and what unpacks them.
        assert page.count("<script") == page.count("</script>") == 5
        data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
        (row,) = data["runs"]
        assert data["run"][row["name"]]["columns"]["update"] == list(range(UPDATES))
        policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
        assert len(re.findall(r"'sha256-", policy[0])) == 4
        assert "connect-src" not in policy[0]

    def test_it_says_where_it_is_and_ends_with_ctrl_c(self, runs: Path) -> None:
        command = [sys.executable, "-m", "esper", "watch", str(runs), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = re.match(r"http://(127\.0\.0\.1:\d+)/ ", line)
            assert address, line
            connection = http.client.HTTPConnection(address[1], timeout=30)
            connection.request("GET", "/api/runs")
            assert len(json.loads(connection.getresponse().read())) == 1
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, "ended; the runs go on", "")

    def test_what_it_cannot_do(self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with WatchServer("127.0.0.1", 0, FollowedRuns([runs])) as server:
            taken = str(server.server_port)
            for flags, says in (
                ([str(tmp_path / "none")], "none: No such file or directory"),
                ([str(runs / "finished" / "events.jsonl")], "events.jsonl: Not a directory"),
                ([str(runs), "--port", taken], f"--port {taken}: Address already in use; --port 0 takes any"),
                ([str(runs), "--port", "99999"], "--port 99999: "),
                ([str(runs), "--host", "no such host"], "--host no such host --port 8008: "),
                ([str(runs), "--host", "a" * 80], "--port 8008: "),
                ([str(runs), "--once", str(tmp_path)], "not a file, but a folder"),
            ):
                with pytest.raises(SystemExit) as ended:
                    main(["watch", *flags])
                assert ended.value.code == 2
                assert says in capsys.readouterr().err

    def test_without_plotly_it_says_what_to_install(
        self, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("plotly", "plotly.offline"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(SystemExit):
            main(["watch", str(runs)])
        assert "pip install 'esper-simic[pages]'" in capsys.readouterr().err
