"""Fails if a file names a directory of one machine, or a host that packages were fetched from."""

import re
import subprocess

import project

# None of these lines matches any of the patterns.
PATTERNS = [
    r"(^|[^\w.-])/(work|root|home|Users|builds)/",
    r'"resolved"\s*:\s*"',
    r"https?://[^/\" ]*(registry|mirror|artifactory|nexus)",
    r"(index|static)\.crates\.io",
]
pattern = re.compile("|".join(f"(?:{pattern})" for pattern in PATTERNS))

# Also files that are not committed yet, but none that Git ignores.
files = subprocess.run(
    ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
    cwd=project.ROOT,
    check=True,
    stdout=subprocess.PIPE,
).stdout.decode()
found = []
for name in sorted(set(filter(None, files.split("\0")))):
    path = project.ROOT / name
    if not path.is_file():
        continue
    data = path.read_bytes()
    if b"\0" in data:
        continue
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        if pattern.search(line):
            found.append(f"{name}:{number}: {line.strip()}")
if found:
    project.fail(
        "a machine's path or a package host is named"
        " (npm: --omit-lockfile-registry-resolved)\n" + "\n".join(found)
    )
