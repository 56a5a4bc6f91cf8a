"""The live page's data: what each look reads, and what the server and the file say."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main
from analysis.judging import answers
from analysis.judging.numerals import change
from analysis.live import livepage, server
from analysis.live.livestudy import LiveStudy
from analysis.live.losscurves import BINS, LossCurves
from analysis.loading.load import load
from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunDir, RunState
from tests.helpers import synthetic

Own = Callable[..., Path]


def run_of(path: Path, name: str) -> RunDir:
    return RunDir(next(path.glob(f"{name}_s0-*")))


def unfinished(path: Path, name: str, **state: Any) -> RunDir:
    """The run as if it had not been evaluated."""
    run = run_of(path, name)
    (run.path / "evaluation.jsonl").unlink()
    run.write_state(replace(RunState(stage="train", step=500, steps=1000), **state))
    return run


def group(document: dict[str, Any], variant: str) -> dict[str, Any]:
    return next(found for found in document["groups"] if found["variant"] == variant)


def test_every_run_is_counted_in_its_state(own: Own) -> None:
    path = own(seeds=1)
    unfinished(path, "A-none", error="FloatingPointError: the loss is nan at step 500")
    running = unfinished(path, "B-cosine", eta=30.0, rate=12.345)
    other = {"host": "another-node", "heartbeat": time.time()}
    unfinished(path, "C-weight-norm", **other)
    unfinished(path, "D-forced", **{**other, "heartbeat": time.time() - 1000})
    planned = unfinished(path, "E-all")
    (planned.path / "state.json").unlink()
    with running.lease():
        document = LiveStudy(path).document()
    counts = {"done": 2, "running": 2, "unfinished": 1, "failed": 1, "planned": 1}
    assert document["counts"] == counts
    assert document["share"] == pytest.approx((2 + 4 * 0.45) / 7)
    [row] = group(document, "B-cosine")["runs"]
    expected = {"state": "running", "step": 1000, "steps": 1000, "left": 30.0, "rate": 1600.0}
    assert expected.items() <= row.items()
    [failed] = document["failed"]
    assert (failed["runs"], failed["first"]) == (1, run_of(path, "A-none").name)


def test_a_look_sends_only_what_has_changed(own: Own) -> None:
    path = own(seeds=2)
    study = LiveStudy(path)
    first = study.document()
    assert len(first["groups"]) == first["variants"] == 7
    study.look()
    assert study.document(first["version"])["groups"] == []
    append_row(run_of(path, "E-all").path / "metrics.jsonl", {"step": 1000, "loss": 0.5})
    study.look()
    changed = study.document(first["version"])["groups"]
    assert [found["variant"] for found in changed] == ["E-all"]
    assert {run.get("loss") for run in changed[0]["runs"]} >= {0.5}


def test_curves_read_only_the_appended_rows_and_start_anew_after_a_resume(tmp_path: Path) -> None:
    file = tmp_path / "a" / "metrics.jsonl"
    file.parent.mkdir()
    rows = [json.dumps({"step": step, "loss": 1.0 * step}) + "\n" for step in range(1, 121)]
    file.write_text("".join(rows[:60]) + rows[60][:5])
    curves = LossCurves()
    assert curves.read(tmp_path, {"a": 120}) == {"a"}
    assert curves.read(tmp_path, {"a": 120}) == set()  # the torn row waits for its end
    found = curves.mean(["a"])
    assert len(found) == BINS
    assert found[:30] == [1.5 + 2 * i for i in range(30)]  # two rows each
    assert found[30:] == [None] * 30
    with file.open("a") as handle:
        handle.write(rows[60][5:] + "".join(rows[61:]))
    curves.read(tmp_path, {"a": 120})
    assert curves.mean(["a"]) == [1.5 + 2 * i for i in range(60)]
    file.with_name("new").write_text("".join(rows[:20]))
    file.with_name("new").replace(file)
    curves.read(tmp_path, {"a": 120})
    assert curves.mean(["a"]) == [1.5 + 2 * i for i in range(10)] + [None] * 50
    assert curves.last["a"]["step"] == 20


def test_the_verdicts_are_those_of_the_report(own: Own) -> None:
    path = own(seeds=2)
    document = LiveStudy(path).document()
    assert document["metric"] == "FD-digits@1000"
    [shown] = group(document, "E-all")["answers"]
    judged = next(a for a in answers.answers(load(path)) if a.variant == "E-all")
    assert (shown["verdict"], shown["seeds"]) == (judged.verdict, judged.seeds)
    assert shown["change"] == change(judged.effect, judged.low, judged.high, judged.scale)
    assert group(document, "E-all")["mean"] == 31
    assert group(document, "A-none")["baseline"]
    # made anew when a run has ended, and no sooner than their cost allows
    study = LiveStudy(path)
    run = unfinished(path, "E-all")
    study.look()
    study._due = 0
    synthetic.write_evaluation(run, 60.0, 0)
    study.look()
    assert group(study.document(), "E-all")["mean"] == 46


def test_each_declared_look_keeps_its_verdicts(tmp_path: Path) -> None:
    values = {"A-none": (20.0, 21.0, 20.5, 20.2, 20.7), "E-all": (18.0, 21.0, 18.5, 18.2, 18.3)}
    entries = []
    for variant, of_seeds in values.items():
        for seed, value in enumerate(of_seeds):
            run = synthetic.config(synthetic.VARIANTS[variant], seed)
            folder = RunDir(tmp_path / "s" / f"{variant}_s{seed}-{run.id}")
            folder.write_config(run)
            synthetic.write_evaluation(folder, value, seed)
            entries.append(synthetic.entry(folder, run, variant))
    synthetic.write_listing(tmp_path / "s", entries)
    table = json.loads((tmp_path / "s" / "study.json").read_text())
    decisions = {"metric": None, "margin": 0.0, "scale": "ratio", "looks": [3, 5, 8], "tuning": []}
    (tmp_path / "s" / "study.json").write_text(json.dumps({**table, "decisions": decisions}))
    found = answers.at_looks(load(tmp_path / "s", curves=False))
    assert [(look, then[0].seeds, then[0].verdict) for look, then in found.items()] == [
        (3, 3, "undecided"),
        (5, 5, "better"),
    ]
    document = LiveStudy(tmp_path / "s").document()
    assert (document["looks"], document["looked"]) == ([3, 5, 8], [3, 5])
    assert group(document, "E-all")["looks"] == ["undecided", "better"]


@pytest.fixture
def served(own: Own) -> Iterator[server.LiveServer]:
    path = own(seeds=1)
    (run_of(path, "E-all").samples / "grid.png").write_bytes(b"\x89PNG picture")
    with server.LiveServer(path, 0) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(running: server.LiveServer, path: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(running.address + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, b""


def test_the_server_answers_only_this_machine_and_only_of_the_study(
    served: server.LiveServer,
) -> None:
    assert served.server_address[0] == "127.0.0.1"
    status, page = ask(served, "")
    assert status == 200
    assert not re.search(rb"(src|href)=\"(https?:)?//", page)
    status, text = ask(served, "live.json")
    assert json.loads(text)["counts"] == {"done": 7}
    [newest] = json.loads(text)["newest"]
    assert ask(served, f"samples/{newest['name']}") == (200, b"\x89PNG picture")
    for wrong in ("samples/..%2F..%2Fetc", "samples/", "study.json", "live.json/x"):
        assert ask(served, wrong)[0] == 404
    port = served.server_port
    assert ask(served, "live.json", Host=f"evil.example:{port}")[0] == 403
    assert ask(served, "live.json", Host=f"localhost:{port}")[0] == 200


def test_a_taken_port_is_one_message_that_names_a_free_one(
    own: Own, capsys: pytest.CaptureFixture[str]
) -> None:
    path = own(seeds=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["report", str(path), "--serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    free = int(said.rpartition("--port ")[2])
    assert port < free < 65_536
    socket.create_server(("127.0.0.1", free)).close()


def test_ctrl_c_ends_the_server_cleanly(own: Own) -> None:
    command = [sys.executable, "-m", "analysis", "report", str(own(seeds=1)), "--serve"]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [*command, "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}/" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out.strip() == "stopped"


def test_the_file_renews_itself_until_every_run_is_done(own: Own) -> None:
    path = own(seeds=1)
    (run_of(path, "B-cosine").samples / "grid.png").write_bytes(b"picture")
    run = unfinished(path, "E-all")
    pages: list[str] = []

    def rest(seconds: float) -> None:
        assert seconds == 300
        pages.append((path / "report" / livepage.FILE).read_text())
        synthetic.write_evaluation(run, 30.0, 0)

    file = livepage.renew(path, 300, rest=rest)
    pages.append(file.read_text())
    shown = []
    for page in pages:
        text = re.search(r'id="document">(.*?)</script>', page, re.DOTALL)
        assert text is not None
        shown.append(json.loads(text[1])["counts"])
    assert shown == [{"done": 6, "unfinished": 1}, {"done": 7}]
    assert ['http-equiv="refresh" content="300"' in page for page in pages] == [True, False]
    settings = re.search(r'id="settings">(.*?)</script>', pages[-1], re.DOTALL)
    assert settings is not None
    samples = json.loads(settings[1])["samples"]
    picture = file.parent / samples / run_of(path, "B-cosine").name / "samples/grid.png"
    assert picture.read_bytes() == b"picture"
    assert [kept.name for kept in file.parent.iterdir()] == [livepage.FILE]  # nothing left aside


def test_what_runs_wrote_cannot_leave_the_pages_data(own: Own) -> None:
    path = own(seeds=1, A_none="</script><script>alert(1)</script>")
    unfinished(path, "B-cosine", error="<img src=x onerror=alert(2)></script>")
    page = livepage.html(LiveStudy(path))
    assert page.count("</script>") == 3
    assert "<img" not in page


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--every", "5"], "--every"),
        (["--every", "0s"], "--every"),
        (["--serve", "--port", "70000"], "--port"),
        (["--port", "8000"], "--serve"),
        (["--serve", "--every", "5m"], "--every"),
        (["--serve", "--out", "x"], "--out"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    own: Own, options: list[str], key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["report", str(own(seeds=1)), *options])
    except SystemExit as refused:  # argparse's own
        status = refused.code  # type: ignore[assignment]
    assert status == 2
    assert key in capsys.readouterr().err


def test_a_large_study_is_read_quickly_and_sent_small(tmp_path: Path) -> None:
    rows = "".join(json.dumps({"step": 10 * i, "loss": 0.5}) + "\n" for i in range(1, 101))
    entries = []
    for number in range(1000):
        name = f"v{number // 5}_s{number % 5}-{number:08x}"
        folder = tmp_path / "s" / name
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text(rows)
        entry = {"name": name, "variant": f"v{number // 5}", "seed": number % 5, "steps": 1000}
        entries.append(entry)
    synthetic.write_listing(tmp_path / "s", entries)
    study = LiveStudy(tmp_path / "s")
    assert len(json.dumps(study.document(), separators=(",", ":"))) < 300_000
    began = time.process_time()
    study.look()
    assert time.process_time() - began < 0.5
    assert len(json.dumps(study.document(study.version - 1))) < 3000
