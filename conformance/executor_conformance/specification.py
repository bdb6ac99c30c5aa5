"""The written specification, made from the rules, and the diagram of states, made from their table.

python -m executor_conformance.specification > docs/specification.md
python -m executor_conformance.specification states > docs/states.md
"""

from __future__ import annotations

import argparse
import re
import sys

from executor_conformance.contract import LEGAL_TRANSITIONS, STATES, TERMINAL_STATES
from executor_conformance.rules import CHAPTERS, GATEWAYS, Rule, catalogue, preamble

_COMMAND = "python -m executor_conformance.specification"


def specification() -> str:
    """Every chapter and rule, as Markdown."""
    lines = [
        "# The specification",
        "",
        f"<!-- written by `{_COMMAND}`; edit the docstrings of the rules instead -->",
        "",
        *_INTRODUCTION,
        "",
    ]
    for number, chapter in enumerate(CHAPTERS, 1):
        lines.append(f"{number}. [{chapter.replace('_', ' ')}](#{_anchor(_heading(number, chapter))})")
    for number, chapter in enumerate(CHAPTERS, 1):
        lines += ["", f"## {_heading(number, chapter)}", "", _markdown(preamble(chapter))]
        for rule in catalogue().values():
            if rule.chapter == chapter:
                lines += ["", *_rule(rule)]
    return "\n".join(lines) + "\n"


_INTRODUCTION = (
    "Each rule is one promise that an executor makes to the scheduler which drives it. A `must` rule decides",
    "whether an executor is conformant; a `should` rule does so at `--conformance-level=should`. The id of a",
    "rule selects it on the command line (`-k ID`) and explains it (`--explain ID`).",
    "",
    "*Needs* names what an executor has to have for the rule to apply. *Builds on* names the rules that,",
    "broken, explain a failure of this one: it is then blocked by them and does not fail itself. Every rule",
    "builds on " + " and ".join(f"`{gateway}`" for gateway in GATEWAYS) + ".",
)


def _heading(number: int, chapter: str) -> str:
    return f"{number}. {chapter.replace('_', ' ').capitalize()}"


def _rule(rule: Rule) -> list[str]:
    lines = [f"### {rule.number} `{rule.id}`", "", f"**{rule.level}** · {_markdown(rule.statement)}", ""]
    lines += [f"*Why:* {_markdown(rule.why)}", "", "*Likely causes:*", ""]
    lines += [f"- {_markdown(cause)}" for cause in rule.causes]
    lines += ["", f"*Origin:* {'; '.join(_origin(origin) for origin in rule.origins)}"]
    if rule.needs:
        lines += ["", f"*Needs:* {'; '.join(need.value for need in rule.needs)}"]
    before = [f"[`{rule_id}`](#{_anchor_of(rule_id)})" for rule_id in rule.after if rule_id not in GATEWAYS]
    if before:
        lines += ["", f"*Builds on:* {', '.join(before)}"]
    return lines


def _anchor_of(rule_id: str) -> str:
    rule = catalogue()[rule_id]
    return _anchor(f"{rule.number} {rule.id}")


def _anchor(heading: str) -> str:
    """The fragment under which GitHub shows a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


_REPORT = re.compile(r"apache/airflow#(\d+)")


def _origin(origin: str) -> str:
    # GitHub leads from the number of an issue to the pull request of that number too.
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
        "What may be reported for one accepted try of a task, and in which order. An executor may leave out",
        f"{' and '.join(optional)}. What it may not leave out, nor say twice, is the last word:",
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
    lines += ["```", "", "| after | may come |", "|---|---|"]
    for before in sorted(LEGAL_TRANSITIONS, key=order.__getitem__):
        following = [f"`{state}`" for state in sorted(LEGAL_TRANSITIONS[before], key=order.__getitem__)]
        lines.append(
            f"| {f'`{before}`' if before else 'nothing yet'} | {', '.join(following) or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Print one of the two documents."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description="Print a document that is made from the rules."
    )
    documents = {"specification": specification, "states": states}
    parser.add_argument("document", nargs="?", choices=documents, default="specification")
    sys.stdout.write(documents[parser.parse_args(arguments).document]())


if __name__ == "__main__":
    main()
