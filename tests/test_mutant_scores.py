"""The table of `make mutants`."""

import io

import pytest

from mutant_scores import main

RESULTS = """\
    esper.simic.scan.x_decayed_sums__mutmut_1: killed
    esper.simic.scan.x_decayed_sums__mutmut_2: timeout
    esper.simic.scan.x_decayed_sums__mutmut_3: survived
    esper.runs.resume.xǁResumeǁread__mutmut_1: caught by type check
    esper.runs.resume.xǁResumeǁread__mutmut_2: no tests
    esper.runs.resume.xǁResumeǁread__mutmut_3: not checked
"""


def test_counts_by_module_and_lists_what_was_not_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(RESULTS))
    main()
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == "| module | mutants | caught by type check | killed | timeout | survived | no tests | other |"
    assert rows == [
        "| simic.scan | 3 | 0 | 1 | 1 | 1 | 0 | 0 |",
        "| runs.resume | 3 | 1 | 0 | 0 | 0 | 1 | 1 |",
        "| all | 6 | 1 | 1 | 1 | 1 | 1 | 1 |",
        "esper.simic.scan.x_decayed_sums__mutmut_3: survived",
        "esper.runs.resume.xǁResumeǁread__mutmut_2: no tests",
    ]
