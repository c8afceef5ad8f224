#!/usr/bin/env python3
"""Writes the seeds to `corpus/`, from the test vectors and the lists below."""

import json
from pathlib import Path

FUZZ = Path(__file__).resolve().parent
VECTORS = FUZZ.parent / "tests" / "vectors"

LIFETIMES = [
    "inf", "NaN", " 3600 ", "+.5e1", "0x10", "1e12", "-1", None, False, [], 1e-300, 3600.5, 2**64,
]

ORIGINS = [
    "https://api.example.com",
    "HTTPS://API.example.com:8443",
    "http://127.0.0.1:8080",
    "http://[::1]",
    "https://xn--bcher-kva.example:443",
    "http://localhost:80",
    "https://api.example.com/",
    "https://u:p@api.example.com",
    "https://*.example.com",
    "https://bücher.example",
    "https://a.example:65536",
    "ftp://a.example",
]

TARGETS = [
    "/path?query",
    "//api.example.com/",
    "api.example.com:443",
    "https://api.example.com/x?y#z",
    "https://API.EXAMPLE.COM:443/",
    "https://user:pass@api.example.com:8443/",
    "https://api.example.com@evil.example/",
    "https://api.example.com:443@evil.example:8080/",
    "https://api.example.com.evil.example/",
    "https://api.example.com:/",
    "https://api.example.com:0443/",
    "https://api.example.com:99999/",
    "https://api.example.com\\@evil.example/",
    "http://api.example.com/",
    "http://127.0.0.1:8080/",
    "http://127.9.9.9/",
    "http://0x7f.1/",
    "http://127.0.0.1.example.com/",
    "http://localhost@api.example.com/",
    "http://LocalHost/",
    "http://[::1]:8080/",
    "http://[::ffff:127.0.0.1]/",
    "ws://127.0.0.1/",
]


def challenges():
    """Yields lines of `WWW-Authenticate`, separated by NUL."""
    for case in vectors("challenges"):
        yield case["id"], "\0".join(case["headers"]).encode("latin-1")
    yield "many", b"a, " * 63 + b'Bearer\0Basic realm="x"'
    yield "long", b"Bearer" + b" a=b," * 66


def token_responses():
    """Yields status, position of the marker, Retry-After, line feed and body."""
    for number, case in enumerate(vectors("token-responses")):
        body = case["body"].encode()
        for status in {case["status"], 200, 400}:
            retry_after = [b"", b"120", b"Sun, 06 Nov 1994 08:49:37 GMT"][number % 3]
            yield f"{case['id']}-{status}", response(status, retry_after, body)
    for number, lifetime in enumerate(LIFETIMES):
        body = json.dumps({"access_token": "a", "expires_in": lifetime}).encode()
        yield f"lifetime-{number}", response(200, b"", body)
    for length in [64, 65]:
        yield f"code-{length}", response(400, b"", json.dumps({"error": "x" * length}).encode())
    for status in [302, 408, 429, 500, 600]:
        yield f"status-{status}", response(status, b"1", b'{"error":"invalid_client"}')


def response(status, retry_after, body):
    marker_at = len(body) // 2
    numbers = (status - 100).to_bytes(2, "big") + marker_at.to_bytes(2, "big")
    return numbers + retry_after + b"\n" + body


def origins():
    """Yields an origin, a line feed and the URI of a request."""
    for number, origin in enumerate(ORIGINS):
        for other, target in enumerate(TARGETS + [origin + "/"]):
            yield f"{number}-{other}", f"{origin}\n{target}".encode()


def vectors(name):
    return json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))


for target, seeds in [
    ("challenge", challenges()),
    ("origin", origins()),
    ("token_response", token_responses()),
]:
    folder = FUZZ / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, content in seeds:
        (folder / f"seed-{name}").write_bytes(content)
        count += 1
    print(f"{target}: {count} seeds")
