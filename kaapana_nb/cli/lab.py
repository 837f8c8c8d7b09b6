"""``kaapana-nb lab``: a JupyterLab dev session on a batch."""

from __future__ import annotations

import argparse
import os
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from kaapana_nb.errors import BatchError, UsageError
from kaapana_nb.settings import Settings

_EPILOG = """\
example:
  kaapana-nb lab                                the sample batch and the tutorial
  kaapana-nb lab --batch /data/my-run           a workflow run of yours (<run>/batch/<series>/get-input-data/)

The address with its token is printed when JupyterLab answers. Your notebooks lie in the workspace, which survives
(KAAPANA_NB_WORKSPACE; default /kaapanadevdata, else below KAAPANA_NB_HOME). Ctrl-C stops all that was started.
"""


def register(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "lab",
        help="start a JupyterLab dev session on a batch",
        description="Start a JupyterLab dev session on a batch, on this machine only, with a random token.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--batch", type=Path, metavar="DIR", help="a run or its batch (default: the sample batch)")
    parser.add_argument("--notebook", metavar="NAME", help="the notebook of the workspace to open")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="port on 127.0.0.1 (default: a free one)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    parser.set_defaults(handler=handle)


def handle(args: argparse.Namespace) -> int:
    from kaapana_nb.data.batch import Batch
    from kaapana_nb.devserver.session import STATE_DIR, LabSession, SessionPlan, check_port, stop_on_signals
    from kaapana_nb.devserver.tutorials import DEFAULT_NOTEBOOK, copy_tutorials, find_notebook, shipped_notebooks
    from kaapana_nb.emulator.sample import ensure_sample

    start = time.monotonic()
    settings = Settings.from_environ()
    if args.port:
        check_port(args.port)
    batch = Batch.open(args.batch or ensure_sample(settings, log=_note))
    if batch.source_dir is not None:
        raise BatchError(
            f"{batch.source_dir} holds DICOM files but no workflow run; <run>/batch/<series>/<operator>/ was expected.",
            f"Start `kaapana-nb lab` and open the files in a notebook: Batch.open({str(batch.source_dir)!r})",
        )
    workspace = settings.workspace
    state = workspace / STATE_DIR
    try:
        state.mkdir(parents=True, exist_ok=True)
        notes = copy_tutorials(shipped_notebooks(), workspace, state / "tutorials.json")
    except OSError as error:
        raise UsageError(
            f"The workspace {workspace} cannot be written: {error.strerror}.",
            "Set KAAPANA_NB_WORKSPACE to a directory that you may write to.",
        ) from error
    plan = SessionPlan(
        workspace=workspace,
        notebook=find_notebook(workspace, args.notebook or DEFAULT_NOTEBOOK),
        run_dir=batch.run_dir,
        batch_name=batch.batch_dir.name,
        port=args.port,
    )
    with stop_on_signals() as stop, LabSession(plan, stop=stop) as session:
        if not stop.is_set():
            for note in notes:
                _note(f"note: {note}")
            print(
                f"JupyterLab is ready ({time.monotonic() - start:.1f} s). Open\n\n  {session.url}\n\n"
                f"batch      {batch.batch_dir} ({len(batch)} series)\n"
                f"workspace  {plan.workspace}\n"
                f"log        {plan.log_file}\n"
                "Ctrl-C stops the session and all that it started.",
                flush=True,
            )
            if not args.no_browser and _has_display():
                _open(session.url, state / "open.html")
            session.wait()
        _note("stopping JupyterLab and its kernels …")
    _note("stopped.")
    return 0


def _open(url: str, page: Path) -> None:
    """Open a browser by a private page, since other users can read a browser's command line."""
    from kaapana_nb.files import write_atomic

    write_atomic(page, f'<meta http-equiv="refresh" content="0; url={url}">'.encode(), mode=0o600)
    webbrowser.open(page.as_uri())


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _note(text: object) -> None:
    print(text, file=sys.stderr, flush=True)
