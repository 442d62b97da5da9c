"""The `prep` command line: commands, exit codes and messages. Heavy libraries load only when a command needs them."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import traceback
from types import FrameType

import typer

from jobs.commands import data as commands_data
from jobs.commands import experiment as commands_experiment
from jobs.commands import export as commands_export
from jobs.commands import imports as commands_import
from jobs.commands import models as commands_models
from jobs.commands import plan as commands_plan
from jobs.commands import report as commands_report
from jobs.commands import score as commands_score
from jobs.commands import search as commands_search
from jobs.commands import train as commands_train
from jobs.commands import triples as commands_triples
from jobs.commands.options import PanelCommand
from jobs.terminal import logs
from pipeline.errors import PrepError

log = logging.getLogger(__name__)
# Exit code that Typer returns after Ctrl-C, instead of raising.
_INTERRUPTED = 130
# The last two are messages of NumPy and torch about a file that was written in part.
_FULL = re.compile(r"No space left on device|ENOSPC|requested and \d+ written|unexpected pos \d+ vs \d+")
_FORBIDDEN = re.compile(r"Permission denied|Read-only file system|Operation not permitted")

app = typer.Typer(
    name="prep",
    help="Score pairs with cross-encoder teachers, build margin triples, and train and evaluate students. "
    "With --debug, a failure shows its traceback.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"max_content_width": 120},
    rich_markup_mode=None,  # rich would take "[Q]" in a help text for markup and drop it
)
imports = typer.Typer(help="Import collections, lists and scores into a workspace.", no_args_is_help=True)
imports.command("msmarco", cls=PanelCommand)(commands_data.import_msmarco)
imports.command("hard-negatives", cls=PanelCommand)(commands_import.import_hard_negatives)
imports.command("scores", cls=PanelCommand)(commands_import.import_scores)
imports.command("run", cls=PanelCommand)(commands_import.import_run)
imports.command("top1000", cls=PanelCommand)(commands_import.import_top1000)
imports.command("triples", cls=PanelCommand)(commands_import.import_triples)
imports.command("beir", cls=PanelCommand)(commands_import.import_beir)
imports.command("hub", cls=PanelCommand)(commands_import.import_hub)
imports.command("ir-dataset", cls=PanelCommand)(commands_import.import_ir_dataset)
app.add_typer(imports, name="import")
app.command("hold-out", cls=PanelCommand)(commands_data.hold_out)
app.command("mine", cls=PanelCommand)(commands_data.mine)
app.command("build-pairs", cls=PanelCommand)(commands_data.build_pairs)
app.command("score", cls=PanelCommand)(commands_score.score)
app.command("build-triples", cls=PanelCommand)(commands_triples.build_triples)
app.command("build-lists", cls=PanelCommand)(commands_triples.build_lists)
app.command("explore-threshold", cls=PanelCommand)(commands_triples.explore_threshold)
app.command("train", cls=PanelCommand)(commands_train.train)
app.command("evaluate", cls=PanelCommand)(commands_models.evaluate)
app.command("encode", cls=PanelCommand)(commands_search.encode)
app.command("search", cls=PanelCommand)(commands_search.search)
app.command("export", cls=PanelCommand)(commands_export.export)
app.command("status", cls=PanelCommand)(commands_data.status)
app.command("plan", cls=PanelCommand)(commands_plan.plan)
app.command("verify", cls=PanelCommand)(commands_score.verify)
app.command("experiment", cls=PanelCommand)(commands_experiment.experiment)
app.command("report", cls=PanelCommand)(commands_report.report)
app.command("demo", cls=PanelCommand)(commands_models.demo)


def main() -> None:
    """Run the command line, and turn failures into messages and exit codes."""
    debug = "--debug" in sys.argv[1:] or os.environ.get("PREP_DEBUG") == "1"
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    logs.set_up()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=arguments, standalone_mode=False)
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; no incomplete file is kept: run the same command again to resume", 1, debug)
    except PrepError as error:
        _fail(str(error), error.exit_code, debug)
    except Exception as error:  # a message instead of a traceback
        if hasattr(error, "exit_code") and hasattr(error, "show"):  # a usage error of Typer
            error.show()
            sys.exit(error.exit_code)
        _fail(_explain(error), 1, debug)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 — a signal handler's shape
    raise KeyboardInterrupt


def _explain(error: Exception) -> str:
    text = str(error).strip()
    if answer := re.search(r"[^\n]*(AWS Error|google::cloud::Status)[^\n]*", text):
        todo = "check the address, the network and the credentials in the environment, then run the command again"
        return f"the object store failed\n  found:    {answer[0]}\n  to do:    {todo}"
    if _FULL.search(text):
        todo = "free some space, then run the same command again"
        return f"the disk is full; no incomplete file is kept\n  found:    {text}\n  to do:    {todo}"
    if _FORBIDDEN.search(text):
        todo = "check the owner of the workspace and how its disk is mounted, then run the same command again"
        return f"no permission to read or write a file\n  found:    {text}\n  to do:    {todo}"
    if isinstance(error, MemoryError) or "Out of Memory" in text:
        found = text.splitlines()[0] if text else "MemoryError"
        todo = "raise --memory-limit, or use smaller shards or batches"
        return f"out of memory\n  found:    {found}\n  to do:    {todo}"
    if isinstance(error, OSError):
        return text
    return f"{type(error).__name__}: {text}\n  to do:    run again with --debug for the traceback, and report it"


def _fail(message: str, code: int, debug: bool) -> None:
    # A message may quote a file, whose control characters must not reach the terminal.
    shown = "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in message)
    if logs.as_objects():
        log.error(shown, exc_info=debug, extra={"fields": {"exit_code": code}})
    else:
        if debug:
            traceback.print_exc()
        print(f"error: {shown}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
