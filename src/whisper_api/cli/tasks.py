"""``whisper-api tasks``: the tasks of a running server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.table import Table

from whisper_api.cli.files import write_whole
from whisper_api.cli.remote import DEFAULT_URL, KeyOption, Remote, UrlOption
from whisper_api.errors import ServerError

app = typer.Typer(no_args_is_help=True, help="Tasks of a running server.")

Ids = Annotated[list[str], typer.Argument(metavar="TASK…", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FINISHED = frozenset({"completed", "failed", "cancelled"})
PATIENCE_S = 600.0
"""How long ``wait`` puts up with a server that is away, from restart to restart."""


@app.command("list")
def listing(
    status: Annotated[list[str] | None, typer.Option(help="Only tasks in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most tasks.")] = 50,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Tasks, newest first."""
    with Remote(url, key) as remote:
        found = list(_pages(remote, status or [], limit))
    if as_json:
        _print(found)
        return
    table = Table("task", "status", "done", "file", "submitted", box=None)
    for task in found:
        when = datetime.fromtimestamp(task["created_at"]).isoformat(" ", "minutes")
        done = f"{task['progress']:.0f} %"
        table.add_row(task["id"], task["status"], done, task["name"], when)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def show(
    task: str,
    shape: Annotated[
        str | None, typer.Option("--format", help="Print the result: text, srt, vtt, json, …")
    ] = None,
    as_json: JsonOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """One task; with ``--format`` its result."""
    with Remote(url, key) as remote:
        if shape is not None:
            print(_result(remote, task, shape), end="")
            return
        found = remote.call("GET", f"/v1/tasks/{task}").json()
    if as_json:
        _print(found)
        return
    error = found["error"]
    for name in ("id", "status", "name", "model", "duration_seconds", "processed_seconds"):
        print(f"{name:18} {found[name]}")
    print(f"{'progress':18} {found['progress']} %")
    for name in ("eta_seconds", "attempts", "history_id", "callback_url"):
        if found[name] is not None:
            print(f"{name:18} {found[name]}")
    if error:
        print(f"{'error':18} {error['message']} ({error['code']})")


@app.command()
def cancel(tasks: Ids, url: UrlOption = DEFAULT_URL, key: KeyOption = None) -> None:
    """Stop tasks that wait or run; finished ones stay."""
    with Remote(url, key) as remote:
        for ident in tasks:
            found = remote.call("GET", f"/v1/tasks/{ident}").json()
            if found["status"] not in FINISHED:
                found = remote.call("DELETE", f"/v1/tasks/{ident}").json()
            print(f"{ident} {found['status']}")


@app.command()
def retry(tasks: Ids, url: UrlOption = DEFAULT_URL, key: KeyOption = None) -> None:
    """Have failed or cancelled tasks go on."""
    with Remote(url, key) as remote:
        for ident in tasks:
            found = remote.call("POST", f"/v1/tasks/{ident}/retry").json()
            print(f"{ident} {found['status']}")


@app.command()
def wait(
    tasks: Ids,
    shape: Annotated[
        str | None, typer.Option("--format", help="Print the results: text, srt, vtt, json, …")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the result (of one task) to this file.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Wait until tasks have ended; exit 1 if any of them failed or was cancelled."""
    bad = 0
    with Remote(url, key) as remote:
        for ident in tasks:
            found = _wait(remote, ident)
            if found["status"] != "completed":
                bad += 1
                reason = (found["error"] or {}).get("message", "")
                print(f"{ident} {found['status']} {reason}".rstrip(), file=sys.stderr)
            elif output is not None:
                write_whole(output, _result(remote, ident, shape or "text"))
            elif shape is not None:
                print(_result(remote, ident, shape), end="")
            else:
                print(f"{ident} completed")
    if bad:
        raise typer.Exit(1)


def _wait(remote: Remote, ident: str) -> dict[str, Any]:
    """Follow a task to its end, through restarts of its server."""
    last: dict[str, str] = {}
    away_since: float | None = None
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with bar:
        entry = bar.add_task(ident[:13], total=100, left="")
        while True:
            try:
                for event, data in _events(remote, ident, last):
                    away_since = None
                    eta = data.get("eta_seconds")
                    left = f"{eta:.0f} s left" if eta else data.get("status", "")
                    if "progress" in data:
                        bar.update(entry, completed=data["progress"], left=left)
                    if event == "status" and data["status"] in FINISHED:
                        return data
            except ServerError:
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > PATIENCE_S:
                    raise
            time.sleep(1)


def _events(
    remote: Remote, ident: str, last: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Events of a task after the last one seen, whose id ``last`` keeps."""
    event = ""
    for line in remote.lines(f"/v1/tasks/{ident}/events", last):
        name, _, value = line.partition(": ")
        if name == "id":
            last["last-event-id"] = value
        elif name == "event":
            event = value
        elif name == "data" and event in ("status", "progress"):
            yield event, json.loads(value)


def _pages(remote: Remote, statuses: list[str], limit: int) -> Iterator[dict[str, Any]]:
    after: dict[str, Any] = {}
    while limit > 0:
        wanted = {"limit": min(limit, 100), "status": statuses, **after}
        page = remote.call("GET", "/v1/tasks", params=wanted).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        limit -= len(page["data"])
        after = {"after": page["last_id"]}


def _result(remote: Remote, ident: str, shape: str) -> str:
    path = f"/v1/tasks/{ident}/result"
    return remote.call("GET", path, params={"response_format": shape}).text


def _print(content: Any) -> None:
    print(json.dumps(content, ensure_ascii=False, indent=2))
