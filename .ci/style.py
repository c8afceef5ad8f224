"""style.py [FOLDER]: checks the wording of doc comments and the length of comment lines.

In all Rust files of the folder, which is `src` by default:

- The summary of an item is a statement: it begins with none of `QUESTION_WORDS`.
- A comment line has at most `MAX_COLUMNS` columns. Links and rows of tables cannot be wrapped.
- Comments use the words that the project has agreed on: none of `WORDS`. This holds for Markdown
  files, too.
"""

import pathlib
import re
import sys

import project

MAX_COLUMNS = 100
QUESTION_WORDS = ("What", "Whether", "How", "Who", "Where", "Which")
# What to avoid, and what to write.
WORDS = {
    r"renew(?:al)?(?:s|ed|ing)?": "refresh",
    r"mend(?:s|ed|ing)?": "fix",
    r"second sendings?": "replay",
    r"by tower(?!-)": "through tower",
    r"(?:hold|holds|held|holding) up": "delay",
}

COMMENT = re.compile(r"^\s*(?P<mark>///(?!/)|//!|//)(?P<text>.*)$")
TRAILING = re.compile(r"\s//(?P<text>[^\"]*)$")
QUESTION = re.compile(rf"({'|'.join(QUESTION_WORDS)})\b")
UNBREAKABLE = re.compile(r"\[[^\]]+\]: \S+|<?https?://\S+|\|.*\|")
AVOIDED = [(re.compile(rf"\b{word}\b", re.IGNORECASE), better) for word, better in WORDS.items()]


def problems(path):
    """The line numbers and texts of the problems in one file."""
    is_rust = path.suffix == ".rs"
    # The mark of the current doc block, and if its summary is still to come.
    block, awaits_summary = None, False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not is_rust:
            yield from ((number, problem) for problem in avoided_words(line))
            continue
        comment = COMMENT.match(line)
        mark = comment["mark"] if comment else None
        comment = comment or TRAILING.search(line)
        if mark in ("///", "//!"):
            if mark != block:
                block, awaits_summary = mark, True
            text = comment["text"].strip()
            if awaits_summary and text:
                awaits_summary = False
                word = QUESTION.match(text)
                if word:
                    yield number, f"a summary begins with `{word[0]}`"
        else:
            block = None
        if comment:
            text = comment["text"].strip()
            if len(line) > MAX_COLUMNS and not UNBREAKABLE.fullmatch(text):
                yield number, f"a comment line of {len(line)} columns, more than {MAX_COLUMNS}"
            yield from ((number, problem) for problem in avoided_words(text))


def avoided_words(text):
    for pattern, better in AVOIDED:
        found = pattern.search(text)
        if found:
            yield f"write `{better}` for `{found[0]}`"


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else project.ROOT / "src"
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".rs", ".md"))
    if not files:
        project.fail(f"no files in {folder}")
    found = [
        f"{path.relative_to(folder.parent).as_posix()}:{number}: {problem}"
        for path in files
        for number, problem in problems(path)
    ]
    if found:
        project.fail("\n".join([f"{len(found)} problems of style", *found]))
    print(f"{len(files)} files")


main()
