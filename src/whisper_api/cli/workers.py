"""``whisper-api workers``: the processes that share the tasks of a running server."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from whisper_api.cli.remote import DEFAULT_URL, KeyOption, Remote, UrlOption

app = typer.Typer(no_args_is_help=True, help="Processes that share the tasks of a server.")


@app.command("list")
def listing(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Servers and workers on the same database."""
    with Remote(url, key) as remote:
        found = remote.call("GET", "/v1/workers").json()["data"]
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table("worker", "role", "state", "host", "version", "models", "running", box=None)
    for worker in found:
        table.add_row(
            worker["id"],
            worker["role"],
            worker["state"],
            f"{worker['host']}:{worker['pid']}",
            worker["version"],
            ", ".join(worker["models"]) or "-",
            str(worker["running"]),
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)


@app.command()
def drain(
    workers: Annotated[list[str], typer.Argument(metavar="WORKER…", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = None,
) -> None:
    """Have workers hand their tasks back and take no more, until they are started anew."""
    with Remote(url, key) as remote:
        for ident in workers:
            found = remote.call("POST", f"/v1/workers/{ident}/drain").json()
            print(f"{ident} {found['state']}")
