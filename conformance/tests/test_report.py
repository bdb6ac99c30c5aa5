"""Tests of the report: its JSON Schema, its counts, when it is conformant, its Markdown and HTML."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from executor_conformance.__main__ import main
from executor_conformance.harness.timing import distribution
from executor_conformance.report import WRITERS, Report, totals
from executor_conformance.report.json_format import schema
from executor_conformance.rules import CHAPTERS, Level, Rule, catalogue
from executor_conformance.verdicts import Finding, Verdict

FINDINGS = {
    Verdict.PASSED: Finding(Verdict.PASSED, duration_s=0.25, measurements={"tasks": 300}),
    Verdict.FAILED: Finding(Verdict.FAILED, expected="an event", actual="none", calls="start(), end()"),
    Verdict.NOT_APPLICABLE: Finding(Verdict.NOT_APPLICABLE, actual="it has no terminate()"),
    Verdict.INCONCLUSIVE: Finding(Verdict.INCONCLUSIVE, actual="the time limit was used up"),
    Verdict.BLOCKED: Finding(
        Verdict.BLOCKED, actual="blocked by another", blocked_by="lifecycle.runs-a-task"
    ),
    Verdict.KNOWN_FAILURE: Finding(Verdict.KNOWN_FAILURE, expected="an event", actual="none"),
    Verdict.UNEXPECTED_PASS: Finding(Verdict.UNEXPECTED_PASS, actual="it was known to fail"),
}


def rules_of(level: Level) -> list[Rule]:
    """Return the rules of this level.  There is no ``may`` rule yet, so a ``should`` rule replaces it."""
    found = [rule for rule in catalogue().values() if rule.level is level]
    if not found and level is Level.MAY:
        replacement = copy.copy(rules_of(Level.SHOULD)[0])
        object.__setattr__(replacement, "level", Level.MAY)
        return [replacement]
    return found


def report_of(
    *findings: tuple[Rule, Finding],
    level: str = "must",
    interrupted: bool = False,
    left_out: int = 0,
    options: Mapping[str, Any] | None = None,
    stubs: tuple[str, ...] = (),
) -> Report:
    return Report(
        target="package.module:Executor",
        adapter="native",
        distribution=None,
        options=options or {},
        machine={
            "python": "3.12.1",
            "platform": "Linux",
            "cpus": 2,
            "calibration": {"fork_s": 0.002, "interpreter_s": 0.03, "jitter_s": 0.0001},
        },
        level=level,
        findings=findings,
        all_rules=len(findings) + left_out,
        seed=7,
        started="2026-11-20T09:30:00+00:00",
        duration_s=41.5,
        command="pytest --executor=package.module:Executor --conformance-seed=7",
        interrupted=interrupted,
        stubs=stubs,
    )


def given(level: Level, verdict: Verdict) -> tuple[Rule, Finding]:
    return rules_of(level)[0], FINDINGS[verdict]


def every_verdict_at_every_level() -> Report:
    return report_of(*((rules_of(level)[0], finding) for level in Level for finding in FINDINGS.values()))


def validate(data: Any) -> None:
    jsonschema.validate(data, schema(), cls=jsonschema.Draft202012Validator)


# -- the schema ----------------------------------------------------------------------------------------------


def test_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


def test_schema_accepts_every_verdict_at_every_level() -> None:
    validate(json.loads(WRITERS[".json"](every_verdict_at_every_level().as_dict())))


def test_schema_accepts_options_and_measurements_of_any_kind() -> None:
    rule = rules_of(Level.MUST)[0]
    finding = Finding(
        Verdict.PASSED, measurements={"processes": ["1", "2"], "deep": {"more": 1.5}, "none": None}
    )
    report = report_of((rule, finding), options={"start_method": "spawn", "sizes": [1, 2], "on": True})
    validate(json.loads(WRITERS[".json"](report.as_dict())))


def test_stubs_are_listed_in_every_format() -> None:
    report = report_of(given(Level.MUST, Verdict.PASSED), stubs=("the program run, by a probe",))
    data = json.loads(WRITERS[".json"](report.as_dict()))
    validate(data)
    assert data["executor"]["stubs"] == ["the program run, by a probe"]
    assert "Stubbed: the program run, by a probe." in WRITERS[".md"](report.as_dict())
    assert "Stubbed: the program run, by a probe." in WRITERS[".html"](report.as_dict())


def test_nan_and_infinity_become_strings() -> None:
    finding = Finding(Verdict.PASSED, measurements={"seconds": [float("inf")]})
    report = report_of((rules_of(Level.MUST)[0], finding), options={"limit": float("nan")})
    data = json.loads(WRITERS[".json"](report.as_dict()), parse_constant=pytest.fail)
    validate(data)
    assert data["executor"]["options"] == {"limit": "nan"}
    assert data["rules"][0]["measurements"] == {"seconds": ["inf"]}


def _drop(*path: str | int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        del data[path[-1]]

    return change


def _put(value: Any, *path: str | int) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for part in path[:-1]:
            data = data[part]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_put(2, "schema_version"), id="another-version"),
        pytest.param(_drop("seed"), id="no-seed"),
        pytest.param(_drop("command"), id="no-command"),
        pytest.param(_drop("rules", 0, "statement"), id="no-statement"),
        pytest.param(_put([], "rules", 0, "origins"), id="no-origin"),
        pytest.param(_drop("conformant"), id="no-verdict"),
        pytest.param(_drop("complete"), id="no-completeness"),
        pytest.param(_drop("verdict"), id="no-words"),
        pytest.param(_drop("level"), id="no-level"),
        pytest.param(_put("somewhere", "executor", "tasks"), id="unknown-place-of-tasks"),
        pytest.param(_drop("summary", "should", "blocked"), id="no-count"),
        pytest.param(_drop("rules", 0, "measurements"), id="no-measurements"),
        pytest.param(_drop("machine", "calibration", "fork_s"), id="no-calibration"),
        pytest.param(_put("skipped", "rules", 0, "verdict"), id="unknown-verdict"),
        pytest.param(_put("could", "rules", 0, "level"), id="unknown-level"),
        pytest.param(_put("misc", "rules", 0, "chapter"), id="unknown-chapter"),
        pytest.param(_put("module.Class", "executor", "target"), id="invalid-target"),
        pytest.param(_put(-1, "summary", "may", "passed"), id="negative-count"),
        pytest.param(_put(-0.5, "rules", 0, "duration_s"), id="negative-duration"),
        pytest.param(_put("a reason", "rules", 0, "message"), id="a-pass-with-a-message"),
        pytest.param(_put("", "rules", 1, "message"), id="a-failure-without-a-message"),
    ],
)
def test_schema_rejects(change: Callable[[Any], None]) -> None:
    data = every_verdict_at_every_level().as_dict()
    validate(data)
    change(data)
    with pytest.raises(jsonschema.ValidationError):
        validate(data)


def test_schema_allows_keys_of_later_versions() -> None:
    data = every_verdict_at_every_level().as_dict()
    for part in (data, data["executor"], data["machine"]["calibration"], data["rules"][0]):
        part["more"] = 1
    validate(data)


def test_every_rule_is_described_and_every_finding_is_in_parts() -> None:
    data = every_verdict_at_every_level().as_dict()
    failed, blocked = (
        next(each for each in data["rules"] if each["verdict"] == verdict)
        for verdict in ("failed", "blocked")
    )
    rule = rules_of(Level.MUST)[0]
    assert failed["statement"] == rule.statement.replace("``", "`")
    assert len(failed["causes"]) == len(rule.causes)
    assert (failed["expected"], failed["actual"], failed["calls"]) == ("an event", "none", "start(), end()")
    assert (failed["blocked_by"], blocked["blocked_by"]) == (None, "lifecycle.runs-a-task")
    assert not any("``" in each["statement"] + each["why"] for each in data["rules"])


def test_schema_has_all_verdicts_levels_and_chapters() -> None:
    entry = schema()["properties"]["rules"]["items"]["properties"]
    assert entry["verdict"]["enum"] == [verdict.value for verdict in Verdict]
    assert entry["level"]["enum"] == [level.value for level in Level]
    assert set(CHAPTERS) <= set(entry["chapter"]["enum"])
    assert all(rule.chapter.name in entry["chapter"]["enum"] for rule in catalogue().values())


def test_report_of_a_real_run_matches_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            "--executor=concurrent.futures:ThreadPoolExecutor",
            "--executor-option=thread_name_prefix=judged",
            f"--conformance-report={path}",
            *("-k", "interface or negative"),
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert path.exists(), done.stdout + done.stderr
    data = json.loads(path.read_text())
    validate(data)
    assert done.returncode == 0, done.stdout
    assert data["suite"]["version"] == metadata.version("executor-conformance")
    assert data["executor"] == {
        "target": "concurrent.futures:ThreadPoolExecutor",
        "adapter": "futures",
        "distribution": None,
        "options": {"thread_name_prefix": "judged"},
        "tasks": "in the host",
    }
    assert (data["complete"], data["conformant"]) == (False, None)
    by_id = {rule["id"]: rule for rule in data["rules"]}
    assert by_id["parallelism.negative-is-rejected"]["verdict"] == "passed"
    assert by_id["interface.list-and-tuple-argv-are-accepted"]["verdict"] == "not_applicable"
    assert by_id["interface.list-and-tuple-argv-are-accepted"]["message"]
    assert sum(sum(counts.values()) for counts in data["summary"].values()) == len(data["rules"])


# -- the counts ----------------------------------------------------------------------------------------------


def test_summary_counts_verdicts_by_level() -> None:
    must, should = rules_of(Level.MUST), rules_of(Level.SHOULD)
    report = report_of(
        (must[0], FINDINGS[Verdict.PASSED]),
        (must[1], FINDINGS[Verdict.PASSED]),
        (must[2], FINDINGS[Verdict.FAILED]),
        (must[3], FINDINGS[Verdict.NOT_APPLICABLE]),
        (should[0], FINDINGS[Verdict.PASSED]),
        (should[1], FINDINGS[Verdict.BLOCKED]),
    )
    nothing = dict.fromkeys((verdict.value for verdict in Verdict), 0)
    assert report.as_dict()["summary"] == {
        "must": {**nothing, "passed": 2, "failed": 1, "not_applicable": 1},
        "should": {**nothing, "passed": 1, "blocked": 1},
        "may": nothing,
    }


def test_count_of_one_chapter() -> None:
    report = report_of(*((rule, FINDINGS[Verdict.PASSED]) for rule in catalogue().values()))
    by_chapter = {
        chapter.name: report.count(chapter=chapter)[Verdict.PASSED] for chapter in CHAPTERS.values()
    }
    assert all(by_chapter.values())
    assert sum(by_chapter.values()) == len(catalogue())


# -- conformant ----------------------------------------------------------------------------------------------

PASSED_MUST = given(Level.MUST, Verdict.PASSED)
FAILED_MUST, FAILED_SHOULD = given(Level.MUST, Verdict.FAILED), given(Level.SHOULD, Verdict.FAILED)


@pytest.mark.parametrize(
    "verdict",
    [Verdict.FAILED, Verdict.KNOWN_FAILURE, Verdict.UNEXPECTED_PASS, Verdict.INCONCLUSIVE],
    ids=str,
)
def test_verdicts_that_prevent_conformance(verdict: Verdict) -> None:
    against_must, against_should = given(Level.MUST, verdict), given(Level.SHOULD, verdict)
    against_may = given(Level.MAY, verdict)
    assert not report_of(PASSED_MUST, against_must, level="must").conformant
    assert not report_of(PASSED_MUST, against_must, level="should").conformant
    assert report_of(PASSED_MUST, against_should, level="must").conformant
    assert not report_of(PASSED_MUST, against_should, level="should").conformant
    assert report_of(PASSED_MUST, against_may, level="should").conformant


@pytest.mark.parametrize("verdict", [Verdict.PASSED, Verdict.NOT_APPLICABLE, Verdict.BLOCKED], ids=str)
def test_verdicts_that_do_not_prevent_conformance(verdict: Verdict) -> None:
    assert report_of(PASSED_MUST, given(Level.MUST, verdict), level="should").conformant


@pytest.mark.parametrize(
    "verdicts",
    [
        pytest.param((), id="no-rule"),
        pytest.param((Verdict.NOT_APPLICABLE,), id="not-applicable-only"),
        pytest.param((Verdict.NOT_APPLICABLE, Verdict.BLOCKED), id="blocked-only"),
        pytest.param((Verdict.INCONCLUSIVE,), id="inconclusive-only"),
    ],
)
def test_report_without_a_judged_rule_is_not_conformant(verdicts: tuple[Verdict, ...]) -> None:
    report = report_of(*(given(Level.MUST, verdict) for verdict in verdicts))
    assert not report.conformant
    assert not report.green


@pytest.mark.parametrize(
    ("report", "conformant", "verdict", "green"),
    [
        (report_of(PASSED_MUST), True, "conformant", True),
        (report_of(PASSED_MUST, interrupted=True), None, "no verdict: interrupted", False),
        (report_of(FAILED_MUST, interrupted=True), None, "no verdict: interrupted", False),
        (report_of(PASSED_MUST, left_out=4), None, "no verdict: 1 of 5 rules", True),
        (report_of(FAILED_MUST, left_out=4), False, "not conformant", False),
        (report_of(FAILED_SHOULD, left_out=4), None, "no verdict: 1 of 5 rules", True),
        (
            report_of(given(Level.MUST, Verdict.KNOWN_FAILURE), left_out=4),
            False,
            "not conformant",
            True,
        ),
        (
            report_of(PASSED_MUST, given(Level.MUST, Verdict.INCONCLUSIVE), left_out=3),
            None,
            "no verdict: 2 of 5 rules",
            False,
        ),
        (
            report_of(given(Level.MUST, Verdict.NOT_APPLICABLE)),
            None,
            "no verdict: no rule could be judged",
            False,
        ),
        (
            replace(report_of(PASSED_MUST), saw_a_task=False),
            None,
            "no verdict: no task was seen to run",
            False,
        ),
    ],
)
def test_verdict_of_the_run(report: Report, conformant: bool | None, verdict: str, green: bool) -> None:
    data = report.as_dict()
    assert (report.conformant, report.verdict, report.green) == (conformant, verdict, green)
    assert (data["conformant"], data["verdict"]) == (conformant, verdict)
    validate(data)
    assert WRITERS[".md"](report.as_dict()).splitlines()[0] == f"# package.module:Executor: {verdict}"
    assert f"<title>package.module:Executor: {verdict}</title>" in WRITERS[".html"](report.as_dict())


@pytest.mark.parametrize(
    ("report", "objection"),
    [
        (report_of(PASSED_MUST), ""),
        (report_of(PASSED_MUST, given(Level.SHOULD, Verdict.KNOWN_FAILURE)), ""),
        (report_of(PASSED_MUST, given(Level.MUST, Verdict.KNOWN_FAILURE)), "not conformant"),
        (report_of(PASSED_MUST, given(Level.SHOULD, Verdict.INCONCLUSIVE)), "1 inconclusive"),
        (report_of(PASSED_MUST, left_out=1), "no verdict: 1 of 2 rules"),
    ],
)
def test_certificate(report: Report, objection: str) -> None:
    assert report.objection_to_certificate() == objection


def test_counts_separate_the_levels() -> None:
    report = report_of(PASSED_MUST, FAILED_MUST, FAILED_SHOULD, given(Level.SHOULD, Verdict.INCONCLUSIVE))
    assert totals(report.summary()) == "1 passed, 1 must and 1 should failed, 1 should inconclusive"


# -- messages and Markdown -----------------------------------------------------------------------------------


def test_message_has_expected_actual_and_calls() -> None:
    entries = {entry["verdict"]: entry for entry in every_verdict_at_every_level().as_dict()["rules"]}
    assert entries["failed"]["message"] == "expected an event; actual: none (calls: start(), end())"
    assert entries["passed"]["message"] == ""
    assert entries["blocked"]["message"] == "blocked by another"


def test_markdown_has_target_verdict_and_failures() -> None:
    text = WRITERS[".md"](every_verdict_at_every_level().as_dict())
    assert text.splitlines()[0] == "# package.module:Executor: not conformant"
    rule = rules_of(Level.MUST)[0]
    assert f"- **{rule.id}** (must): expected an event; actual: none (calls: start(), end())" in text
    conformant = WRITERS[".md"](report_of(PASSED_MUST).as_dict())
    assert conformant.splitlines()[0] == "# package.module:Executor: conformant"
    assert "## Failed" not in conformant


def test_markdown_table_rows_have_equal_length() -> None:
    lines = [
        line
        for line in WRITERS[".md"](every_verdict_at_every_level().as_dict()).splitlines()
        if line.startswith("|")
    ]
    assert len(lines) >= 3
    assert len({line.count("|") for line in lines}) == 1


def test_markdown_escapes_text_from_an_executor() -> None:
    seen = "<script>alert(1)</script> a|b *bold* __init__() x_y `code`\n# heading\n- item"
    finding = Finding(Verdict.FAILED, expected="<LocalExecutor object>", actual=seen)
    text = WRITERS[".md"](report_of((rules_of(Level.MUST)[0], finding)).as_dict())
    assert "<script>" not in text
    assert "<LocalExecutor" not in text
    assert r"a\|b" in text
    assert r"\*bold\* \_\_init\_\_() x_y \`code\`" in text
    assert "\n# heading" not in text
    assert "\n- item" not in text


def test_html_escapes_text_from_an_executor() -> None:
    finding = Finding(Verdict.FAILED, expected="<LocalExecutor object>", actual="<script>alert(1)</script>")
    rule = rules_of(Level.MUST)[0]
    text = WRITERS[".html"](report_of((rule, finding)).as_dict())
    assert rule.id in text
    assert "package.module:Executor" in text
    assert "alert(1)" in text
    assert "<script>alert" not in text
    assert "<LocalExecutor" not in text


def test_html_page_shows_the_failures_first_and_loads_nothing() -> None:
    rules = rules_of(Level.MUST)
    findings = {
        rules[0]: Finding(Verdict.FAILED, expected="an event", actual="none", evidence="Traceback of mine"),
        rules[1]: Finding(Verdict.BLOCKED, actual="blocked", blocked_by=rules[2].id),
        rules[2]: Finding(Verdict.FAILED, expected="a worker", actual="none"),
        rules[3]: FINDINGS[Verdict.PASSED],
    }
    text = WRITERS[".html"](report_of(*findings.items(), FAILED_SHOULD).as_dict())
    articles = re.findall(r'<article id="([^"]+)"( class="uncounted")?>', text)
    should = rules_of(Level.SHOULD)[0].id
    assert articles == [(rules[2].id, ""), (rules[0].id, ""), (should, ' class="uncounted"')]
    assert text.index("<article") < text.index("Chapters")
    assert "blocks 1 rule)" in text
    assert "Traceback of mine" in text
    assert f"--conformance-seed=7 -k {rules[0].id}" in text
    assert not re.findall(r'(?:src|href)="(?!https://github\.com/|#|data:,)[^"]*"', text)
    assert "url(" not in text
    assert "``" not in text
    for target in re.findall(r'href="#([^"]+)"', text):  # without JavaScript, too
        assert f'id="{target}"' in text


def test_html_page_draws_measurements() -> None:
    queued = distribution([0.0001] * 8 + [0.003])
    findings = {
        rule: Finding(Verdict.PASSED, measurements=measured)
        for rule, measured in zip(
            rules_of(Level.MUST),
            (
                {"queued_time": queued, "budget_s": 0.1},
                {"queued_time": queued},
                {"bytes": [41_000_000, 42_000_000, 42_000_000]},
                {"objects": [7, 7, 7]},
                {"tasks": 300, "bytes": [1]},
            ),
            strict=False,
        )
    }
    text = WRITERS[".html"](report_of(*findings.items()).as_dict())
    assert text.count("<svg") == 4
    assert text.count('class="budget"') == 1
    assert "9 samples: median 100 µs, p95 3 ms, maximum 3 ms; budget 100 ms" in text
    assert "3 samples: 41.0 MB at first, 42.0 MB at last" in text
    for svg in re.findall(r"<svg.*?</svg>", text):
        drawing = ElementTree.fromstring(svg)
        for bar in drawing.iter("rect"):
            assert 0 <= float(bar.get("x", "")) <= 480
            assert float(bar.get("height", "")) > 0
        for mark in drawing.iter("line"):
            assert 64 <= float(mark.get("x1", "")) <= 480


def test_html_page_links_the_reports_that_a_rule_comes_from() -> None:
    rule = next(rule for rule in catalogue().values() if "apache/airflow#" in "".join(rule.origins))
    text = WRITERS[".html"](report_of((rule, FINDINGS[Verdict.FAILED])).as_dict())
    assert re.search(r'<a href="https://github.com/apache/airflow/issues/\d+">apache/airflow#\d+</a>', text)


# -- the commands that read reports --------------------------------------------------------------------------


def written(path: Path, *findings: tuple[Rule, Finding], level: str = "must") -> str:
    path.write_text(WRITERS[".json"](report_of(*findings, level=level).as_dict()))
    return str(path)


@pytest.mark.parametrize("suffix", [".md", ".html", ".json"])
def test_a_report_is_made_again_from_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    report = every_verdict_at_every_level()
    path = tmp_path / "r.json"
    path.write_text(WRITERS[".json"](report.as_dict()))
    assert main(["report", str(path), "--to", suffix[1:]]) == 0
    assert capsys.readouterr().out == WRITERS[suffix](report.as_dict())


@pytest.mark.parametrize(
    ("before", "after", "level", "status", "line"),
    [
        (
            PASSED_MUST,
            FAILED_MUST,
            "must",
            1,
            "REGRESSION {must} (must): passed -> failed: expected an event",
        ),
        (FAILED_MUST, PASSED_MUST, "must", 0, "{must} (must): failed -> passed"),
        (
            given(Level.SHOULD, Verdict.PASSED),
            FAILED_SHOULD,
            "must",
            0,
            "{should} (should): passed -> failed",
        ),
        (given(Level.SHOULD, Verdict.PASSED), FAILED_SHOULD, "should", 1, "REGRESSION {should} (should)"),
        (
            PASSED_MUST,
            given(Level.MUST, Verdict.BLOCKED),
            "must",
            1,
            "REGRESSION {must} (must): passed -> bl",
        ),
        (PASSED_MUST, given(Level.MUST, Verdict.INCONCLUSIVE), "must", 0, "{must} (must): passed -> inconcl"),
        (FAILED_MUST, FAILED_SHOULD, "must", 0, "{should} (should): not run -> failed"),
        (PASSED_MUST, FAILED_SHOULD, "must", 1, "REGRESSION {must} (must): passed -> not run"),
        (
            FAILED_MUST,
            FAILED_MUST,
            "must",
            0,
            "not conformant -> not conformant; 0 verdicts changed, 0 regressions",
        ),
    ],
)
def test_diff(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    before: tuple[Rule, Finding],
    after: tuple[Rule, Finding],
    level: str,
    status: int,
    line: str,
) -> None:
    old, new = written(tmp_path / "old.json", before), written(tmp_path / "new.json", after, level=level)
    assert main(["diff", old, new]) == status
    names = {"must": rules_of(Level.MUST)[0].id, "should": rules_of(Level.SHOULD)[0].id}
    lines = capsys.readouterr().out.splitlines()
    assert any(each.startswith(line.format(**names)) for each in lines), lines


def test_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = (
        written(tmp_path / "a.json", PASSED_MUST),
        written(tmp_path / "b.json", FAILED_MUST, FAILED_SHOULD),
    )
    assert main(["matrix", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"| `{rules_of(Level.MUST)[0].id}` | must | ✓ | ✗ |" in lines
    assert f"| `{rules_of(Level.SHOULD)[0].id}` | should |  | ✗ |" in lines
    assert "| **verdict** | | conformant | not conformant |" in lines


@pytest.mark.parametrize(
    ("findings", "message", "color"),
    [
        ((PASSED_MUST, given(Level.SHOULD, Verdict.NOT_APPLICABLE)), "must, 1 of 1 rules", "brightgreen"),
        ((PASSED_MUST, FAILED_MUST), "not conformant, 1 of 2 rules", "red"),
        ((), "no verdict", "lightgrey"),
    ],
)
def test_badge(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    findings: tuple[tuple[Rule, Finding], ...],
    message: str,
    color: str,
) -> None:
    path = written(tmp_path / "r.json", *findings)
    assert main(["badge", path, "--to", "json"]) == 0
    endpoint = json.loads(capsys.readouterr().out)
    assert (endpoint["schemaVersion"], endpoint["color"]) == (1, color)
    assert endpoint["message"].startswith(message)
    assert main(["badge", path]) == 0
    picture = ElementTree.fromstring(capsys.readouterr().out)
    assert [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")][1] == endpoint["message"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "not JSON"),
        ("[]", "not a report"),
        ('{"rules": []}', "not a report"),
        ('{"schema_version": 2, "executor": {}, "rules": []}', "schema version 2 is not supported"),
        ('{"schema_version": 1, "executor": {}, "rules": []}', "missing: suite, machine"),
        (None, "cannot read"),
    ],
)
@pytest.mark.parametrize("command", ["report", "diff", "matrix", "badge"])
def test_a_file_that_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, text: str | None, error: str
) -> None:
    path = tmp_path / "r.json"
    if text is not None:
        path.write_text(text)
    assert main([command, str(path), *([str(path)] if command == "diff" else [])]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert error in captured.err
    assert str(path) in captured.err
    assert len(captured.err.splitlines()) == 1
