"""Runs a command and fails if it fails, or if a pattern occurs in no line of its output.

The command follows `--`, or is the line of the README that begins with the text after `--readme`.
"""

import argparse
import re
import sys

import project

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--readme", metavar="PREFIX")
parser.add_argument("--expect", metavar="PATTERN", action="append", default=[])
parser.add_argument("--seconds", type=int)
parser.add_argument("command", nargs="*")
arguments = parser.parse_args()
if bool(arguments.readme) == bool(arguments.command):
    parser.error("give either a command or --readme")

missing = set(arguments.expect)


def check(line):
    missing.difference_update([pattern for pattern in missing if re.search(pattern, line)])


command = arguments.command
if arguments.readme:
    command = project.readme_command(arguments.readme)
    print(f"$ {command}", flush=True)
status = project.run(command, arguments.seconds, check)
if status != 0:
    sys.exit(status if status > 0 else 1)
for pattern in sorted(missing):
    project.fail(f"no line of the output matches {pattern}")
