"""The specification, generated from the rules, and the state diagram, generated from the transition table.

python -m executor_conformance.specification > docs/specification.md
python -m executor_conformance.specification states > docs/states.md
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable

from executor_conformance.contract import LEGAL_TRANSITIONS, STATES, TERMINAL_STATES
from executor_conformance.rules import CHAPTERS, Rule, catalogue, preamble
from executor_conformance.rules.catalogue import gateways

_COMMAND = "python -m executor_conformance.specification"


def specification() -> str:
    """Every chapter and rule, as Markdown."""
    lines = [
        "# The specification",
        "",
        f"<!-- written by `{_COMMAND}`; edit the docstrings of the rules instead -->",
        "",
        _INTRODUCTION.format(gateways=_listed(f"`{gateway}`" for gateway in gateways())),
        "",
    ]
    lines += [f"- [{chapter.title}](#{_anchor(chapter.title)})" for chapter in CHAPTERS.values()]
    for chapter in CHAPTERS.values():
        lines += ["", f"## {chapter.title}", "", _markdown(preamble(chapter))]
        for rule in catalogue().values():
            if rule.chapter == chapter:
                lines += ["", *_rule(rule)]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
Each rule is one promise of an executor to the scheduler that drives it. `must` rules decide whether an
executor is conformant; `should` rules count as well at `--conformance-level=should`; `may` rules are reported
and never count. The id of a rule selects it on the command line (`-k ID`) and explains it (`--explain ID`).
Ids are permanent; see the [rule policy](rule-policy.md). The *host* is the process that holds the executor,
such as a scheduler.

*Needs* lists what an executor must offer, or the suite must be able to observe, for the rule to apply.
*Builds on* lists more basic rules: if one of them fails and explains a failure of this rule, this rule is
blocked and does not fail itself. Every other rule builds on {gateways}."""


def _listed(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}"


def _rule(rule: Rule) -> list[str]:
    lines = [f"### `{rule.id}`", "", f"**{rule.level}** · {_markdown(rule.statement)}", ""]
    lines += [f"*Why:* {_markdown(rule.why)}", "", "*Likely causes:*", ""]
    lines += [f"- {_markdown(cause)}" for cause in rule.causes]
    lines += ["", f"*Origin:* {'; '.join(_origin(origin) for origin in rule.origins)}"]
    if rule.needs:
        lines += ["", f"*Needs:* {'; '.join(need.value for need in rule.needs)}"]
    before = [f"[`{rule_id}`](#{_anchor(rule_id)})" for rule_id in rule.after if rule_id not in gateways()]
    if before:
        lines += ["", f"*Builds on:* {', '.join(before)}"]
    return lines


def _anchor(heading: str) -> str:
    """The fragment under which GitHub shows a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


_REPORT = re.compile(r"apache/airflow#(\d+)")


def _origin(origin: str) -> str:
    # GitHub redirects from the number of an issue to the pull request of that number.
    return _REPORT.sub(r"[apache/airflow#\1](https://github.com/apache/airflow/issues/\1)", _markdown(origin))


def _markdown(text: str) -> str:
    """Docstring text as Markdown: double back-quotes become single ones, and names stay as they are."""
    pieces = re.split(r"``(.+?)``", text)
    for index, piece in enumerate(pieces):
        if index % 2:
            pieces[index] = f"`{piece}`"
        else:
            pieces[index] = re.sub(r"([*_<|])", r"\\\1", piece)
    return "".join(pieces)


def states() -> str:
    """The states and the transitions between them, as Markdown with a Mermaid diagram."""
    optional = [f"`{state}`" for state in STATES if state not in TERMINAL_STATES]
    last = [f"`{state}`" for state in STATES if state in TERMINAL_STATES]
    lines = [
        "# States",
        "",
        f"<!-- written by `{_COMMAND} states`; edit LEGAL_TRANSITIONS instead -->",
        "",
        "What may be reported for one accepted try of a task, and in which order.",
        f"{' and '.join(optional)} are optional. Each try has exactly one terminal event,",
        f"{' or '.join(last)}.",
        "",
        "```mermaid",
        "stateDiagram-v2",
    ]
    order: dict[str | None, int] = {None: -1, **{state: number for number, state in enumerate(STATES)}}
    for before in sorted(LEGAL_TRANSITIONS, key=order.__getitem__):
        following = sorted(LEGAL_TRANSITIONS[before], key=order.__getitem__)
        lines += [f"    {before or '[*]'} --> {state}" for state in following]
        if not following:
            lines.append(f"    {before} --> [*]")
    lines += ["```", "", "| last reported | may follow |", "|---|---|"]
    for before in sorted(LEGAL_TRANSITIONS, key=order.__getitem__):
        following = [f"`{state}`" for state in sorted(LEGAL_TRANSITIONS[before], key=order.__getitem__)]
        lines.append(
            f"| {f'`{before}`' if before else 'nothing yet'} | {', '.join(following) or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print one of the two documents."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description="Print a generated document.")
    documents = {"specification": specification, "states": states}
    parser.add_argument("document", nargs="?", choices=documents, default="specification")
    sys.stdout.write(documents[parser.parse_args(arguments).document]())


if __name__ == "__main__":
    main()
