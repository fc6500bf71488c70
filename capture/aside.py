"""A command of ours that works beside the capture, as a child that cannot hold it up; what it prints is logged."""

import logging
import os
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress

import config
from process import child

POLL_S = 0.25
"""How often it is looked whether the child has ended."""
END_S_MAX = 10.0
LINE_CHARS_MAX = 300
NICE = 10


def run(
    words: Sequence[str], settings: config.Settings, log: logging.Logger, name: str, stop_asked: threading.Event
) -> int:
    """The exit code of `python WORDS --until-stdin-closes`, which is ended if `stop_asked` is set meanwhile.

    `name`: what the log calls it.
    """
    words = [*words, "--until-stdin-closes", *(["--demo"] if settings.demo else [])]
    process = child.start(words, config.as_environment(settings))
    lines = threading.Thread(target=_pass_on, args=(process, log, name), name=f"{name} lines", daemon=True)
    lines.start()
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    while process.poll() is None:
        if stop_asked.wait(POLL_S):
            child.end(process, name, END_S_MAX)
    lines.join(END_S_MAX)
    return process.returncode


def _pass_on(process: "subprocess.Popen[str]", log: logging.Logger, name: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        log.info("%s: %s", name, line.strip()[:LINE_CHARS_MAX])
