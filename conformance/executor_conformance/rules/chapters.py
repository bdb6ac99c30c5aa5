"""The chapters of the specification, in the order in which they are read and run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chapter:
    """One chapter: a module of this package or, where ``parts`` are named, a folder of modules.

    :param parts: the modules of the folder, in order.
    :param about_end: its promises are about ``start()``, ``end()`` and ``terminate()`` themselves, so a call
        that always hangs is a failure of the rule that meets it.
    :param trusts_events: its rules rely on all that an event means, and are blocked where that is broken.
    """

    name: str
    parts: tuple[str, ...] = ()
    about_end: bool = False
    trusts_events: bool = False

    @property
    def title(self) -> str:
        """For headings: ``Queued time``."""
        return self.name.replace("_", " ").capitalize()

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of its modules below this package, in order."""
        return tuple(f"{self.name}.{part}" for part in self.parts) or (self.name,)


CHAPTERS: dict[str, Chapter] = {
    chapter.name: chapter
    for chapter in (
        Chapter(
            "interface",
            parts=(
                "surface",
                "commands",
                "events",
                "attributes",
                "submitting",
                "bookkeeping",
                "futures",
                "callbacks",
                "mapping",
                "threads",
            ),
        ),
        Chapter(
            "lifecycle",
            parts=("construction", "accepting", "redundant_calls", "failed_start", "host", "forks"),
            about_end=True,
        ),
        Chapter("states", parts=("outcomes", "events", "load", "identity")),
        Chapter("parallelism", parts=("argument", "concurrency", "order", "slots")),
        Chapter(
            "shutdown",
            parts=(
                "end",
                "cancellation",
                "pending_calls",
                "poison_pills",
                "leaks",
                "terminate",
                "crashes",
                "races",
                "interruptions",
            ),
            about_end=True,
        ),
        Chapter(
            "queued_time",
            parts=("first_instruction", "overhead", "task_end", "load", "cpu_cost", "submission"),
        ),
        Chapter("memory", parts=("copy_on_write", "per_task", "imports", "leaks")),
        Chapter(
            "faults",
            parts=(
                "deaths",
                "moments",
                "births",
                "orphans",
                "tasks",
                "calls",
                "shortages",
                "hosts",
                "environments",
                "delays",
            ),
            trusts_events=True,
        ),
        Chapter("isolation"),
        Chapter(
            "asynchrony",
            parts=("declarations", "coroutines", "scale", "blocking", "ending", "callers_loop"),
        ),
        Chapter("model"),
    )
}
