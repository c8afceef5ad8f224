"""The package's manifest and README, for the scripts beside this file."""

import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def fail(message):
    sys.exit(f"error: {message}")


def cargo_metadata(*arguments):
    output = subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1", *arguments],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    return json.loads(output)


def package():
    return cargo_metadata("--no-deps")["packages"][0]


def readme_command(prefix):
    """The only line of the README that is this command, with or without arguments."""
    pattern = re.compile(re.escape(prefix) + r"( .*)?$")
    lines = [
        line.split("#")[0].rstrip()
        for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    ]
    lines = [line for line in lines if pattern.match(line)]
    if len(lines) != 1:
        fail(f"README.md must have exactly one line with `{prefix}`, but has {len(lines)}")
    return lines[0]


def run(command, seconds=None, on_line=None):
    """Runs a command, prints its output as it comes, and returns its exit status.

    After the given seconds the command and its children are killed, where the platform has process
    groups; elsewhere the command alone.
    """
    import signal
    import threading

    own_group = os.name == "posix"
    process = subprocess.Popen(
        command,
        shell=isinstance(command, str),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=own_group,
    )
    timed_out = threading.Event()

    def kill():
        if own_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()

    def on_timeout():
        timed_out.set()
        kill()

    timer = threading.Timer(seconds, on_timeout) if seconds else None
    try:
        if timer:
            timer.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            if on_line:
                on_line(line.rstrip("\n"))
        status = process.wait()
    except BaseException:
        kill()
        raise
    finally:
        if timer:
            timer.cancel()
    if timed_out.is_set():
        fail(f"the command did not end within {seconds} s")
    return status
