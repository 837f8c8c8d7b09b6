from __future__ import annotations

import json

import pytest
from dicom_maker import series_uid, write_run

from kaapana_nb.cli.main import main


@pytest.fixture
def messy(tmp_path):
    """One good series, and one with a bit of everything."""
    run = write_run(tmp_path / "run")
    directory = run / "batch" / series_uid("2") / "get-input-data"
    good = (directory / "0001.dcm").read_bytes()
    (directory / "0003.dcm").unlink()
    (directory / "empty.dcm").write_bytes(b"")
    (directory / "a-cut.dcm").write_bytes(good[: len(good) - 20])
    (directory / "header-cut.dcm").write_bytes(good[:300])
    (directory / "notes.txt").write_text("hello")
    (directory / "no-preamble.dcm").write_bytes(good[132:])
    (directory / "copy\x1b[31m.dcm").write_bytes(good)
    (directory / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (run / "batch" / "9.9" / "get-input-data").mkdir(parents=True)
    return run


def test_ls_prints_a_row_per_series(tmp_path, capsys):
    run = write_run(tmp_path)
    assert main(["batch", "ls", str(run)]) == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 3
    assert series_uid("1") in out
    assert "0.5 x 0.75 x 2" in out
    assert "SECRET" not in out
    assert main(["batch", "ls", "--identifiers", str(run)]) == 0
    assert "SECRET-ID" in capsys.readouterr().out


def test_ls_json_has_the_documented_keys(tmp_path, capsys):
    assert main(["batch", "ls", "--json", str(write_run(tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "SECRET" not in out
    row = json.loads(out)["series"][0]
    assert {
        key: row[key] for key in ("series_uid", "modality", "instances", "rows", "columns", "spacing_mm", "problems")
    } == {
        "series_uid": series_uid("1"),
        "modality": "CT",
        "instances": 5,
        "rows": 6,
        "columns": 8,
        "spacing_mm": [0.5, 0.75, 2.0],
        "problems": 0,
    }
    assert main(["batch", "ls", "--json", "--identifiers", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["series"][0]["patient_id"] == "SECRET-ID"


def test_check_is_silent_and_0_when_all_is_well(tmp_path, capsys):
    assert main(["batch", "check", str(write_run(tmp_path))]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 series, 0 errors, 0 warnings" in captured.err


def test_check_has_one_verdict_for_every_bad_file(messy, capsys):
    assert main(["batch", "check", "--json", str(messy)]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert all(problem["problem"] and problem["remedy"] for problem in problems)
    by_name = {problem["path"].rpartition("/")[2]: problem for problem in problems}
    expected = {
        "empty.dcm": ("0 bytes", "error"),
        "a-cut.dcm": ("truncated: 76 bytes of pixels where 96", "error"),
        "header-cut.dcm": ("ends within its header", "error"),
        "notes.txt": ("no DICOM file", "error"),
        "no-preamble.dcm": ("has the SOPInstanceUID of", "warning"),
        "copy\x1b[31m.dcm": ("has the SOPInstanceUID of", "warning"),
        ".DS_Store": ("no DICOM file", "warning"),
    }
    for name, (text, severity) in expected.items():
        assert text in by_name[name]["problem"], name
        assert by_name[name]["severity"] == severity, name
    of_series = [problem["problem"] for problem in problems if problem["path"].endswith("get-input-data")]
    assert any("1 slice(s) missing" in problem for problem in of_series)
    assert any("no DICOM file" in problem for problem in of_series)
    assert len(problems) == len(expected) + len(of_series)


def test_check_prints_remedies_and_no_control_characters(messy, capsys):
    assert main(["batch", "check", str(messy)]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("remedy:") == 9
    assert "\x1b" not in captured.out


def test_a_wrong_directory_is_two_lines_and_1(tmp_path, capsys):
    assert main(["batch", "ls", str(tmp_path / "nowhere")]) == 1
    captured = capsys.readouterr()
    assert "does not exist" in captured.err
    assert "remedy:" in captured.err
    assert captured.out == ""


def test_help_has_an_example(capsys):
    assert main(["batch", "check", "--help"]) == 0
    assert "kaapana-nb batch check DIR" in capsys.readouterr().out
