"""Processes that work together, forked from a warm one as a launcher would start them."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from honing.errors import HoningError
from tests.crashes import HANGS_AFTER_S


def start(number: int, body: Callable[[], int], log: Path) -> list[int]:
    """Fork processes as a launcher would start them; their ids. Each exits with what the body
    returns, and one that hangs is ended by SIGALRM. What rank N says goes to LOG.N."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    return [_fork(rank, number, port, body, log) for rank in range(number)]


def _fork(rank: int, number: int, port: int, body: Callable[[], int], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        tqdm.set_lock(threading.RLock())  # its own is shared by forked processes
        signal.alarm(HANGS_AFTER_S)
        local = {"LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": number}
        meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
        variables = {"RANK": rank, "WORLD_SIZE": number, **local, **meeting}
        os.environ |= {name: str(value) for name, value in variables.items()}
        with log.with_name(f"{log.name}.{rank}").open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                status = body()
            except SystemExit as error:
                status = int(error.code or 0)
            except HoningError as error:
                print(f"honing: {error}")
                status = error.exit_status
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
    finally:
        os._exit(status)


def ends_of(children: list[int]) -> list[int]:
    """The exit status of each, negative where a signal ended it."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def said(log: Path, number: int) -> list[list[str]]:
    """What each process said."""
    logs = [
        log.with_name(f"{log.name}.{rank}").read_text(encoding="utf-8") for rank in range(number)
    ]
    return [text.splitlines() for text in logs]
