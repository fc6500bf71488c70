"""`python -m tests.support.supply audit`: what is known against the packages that are used, by pip-audit and npm audit.
`python -m tests.support.supply sbom FOLDER`: lists of them (CycloneDX), for the capture alone and for everything.

The audit fails if something is known. Where a service cannot be reached, or does not answer in time, a line says so.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement

from process.child import ROOT

AUDIT_S_MAX = 60.0
WORDS_CHARS_MAX = 200
VENDORED = ROOT / "tests" / "vendored"
SPEC = "1.6"

_AWAY = re.compile(
    r"connect|timed? ?out|unreachable|resolv|audit endpoint|proxy|http error|enotfound|econn|eai_again|\b[45]\d\d\b",
    re.I,
)
"""In the words of a program that could not ask; whatever else goes wrong is an error."""


class Program(NamedTuple):
    """A program that asks a service about packages; `known`: what its answer says is known, a line each."""

    packages: str
    command: tuple[str, ...]
    known: Callable[[Any], Iterator[str]]


def _of_pip(answer: Any) -> Iterator[str]:
    unknown = [one["name"] for one in answer["dependencies"] if "skip_reason" in one]
    if unknown:
        # As behind a mirror of the index, which does not tell what is known.
        _say(
            f"{len(unknown)} of {len(answer['dependencies'])} Python packages are not checked: not known to the service"
        )
    for one in answer["dependencies"]:
        for found in one.get("vulns", ()):
            mended = ", ".join(found["fix_versions"]) or "none"
            yield f"{one['name']} {one['version']}: {found['id']} (mended in: {mended})"


def _of_npm(answer: Any) -> Iterator[str]:
    for name, one in answer["vulnerabilities"].items():
        titles = [via["title"] for via in one["via"] if isinstance(via, dict)]
        yield f"{name} {one['range']}: {one['severity']}: {'; '.join(titles) or 'by a package that it needs'}"


PROGRAMS = (
    # Everything that the requirements files brought into the virtual environment, also what they do not name.
    Program("the Python packages", ("pip-audit", "--local", "--format=json", "--progress-spinner=off"), _of_pip),
    Program("the dashboard's packages", ("npm", "audit", "--json", "--package-lock-only"), _of_npm),
)


def audit() -> int:
    """1 if something is known against a package, or a program does not work; a line for each on stderr."""
    return max([_ask(program) for program in PROGRAMS])


def _ask(program: Program) -> int:
    name = program.command[0]
    try:
        done = subprocess.run(
            program.command, cwd=VENDORED, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=AUDIT_S_MAX
        )
    except FileNotFoundError:
        return _say(f"{program.packages} are not checked: there is no {name}")
    except subprocess.TimeoutExpired:
        return _say(f"{program.packages} are not checked: {name} had no answer after {AUDIT_S_MAX:.0f} s")
    try:
        known = list(program.known(json.loads(done.stdout)))
    except (ValueError, KeyError, TypeError):
        words = (done.stderr or done.stdout).strip()
        for line in words.splitlines():
            if _AWAY.search(line):
                why = line[:WORDS_CHARS_MAX]
                return _say(f"{program.packages} are not checked: the service of {name} cannot be reached ({why})")
        _say(f"{name} failed (exit code {done.returncode}): {''.join(words.splitlines()[-1:])[:WORDS_CHARS_MAX]}")
        return 1
    for line in known:
        _say(f"{name}: {line}")
    return 1 if known else 0


def _say(line: str) -> int:
    print(line, file=sys.stderr)
    return 0


# ---- The lists.

LISTS = {"capture": ("requirements.txt",), "all": ("requirements.txt", "requirements-tools.txt")}
"""By the file's name: the requirements whose packages, and what these need, are in it."""


def sbom(folder: Path) -> int:
    """Writes FOLDER/capture.json and FOLDER/all.json; the second has the dashboard's vendored packages too."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = _listed(sorted(_installed(LISTS["all"])))
    for name, files in LISTS.items():
        pinned = _installed(files)
        packages = [one for one in everything["components"] if f"{one['name']}=={one['version']}" in pinned]
        refs = {one["bom-ref"] for one in packages}
        packages += _vendored() if name == "all" else []
        needs = [one for one in everything["dependencies"] if one["ref"] in refs]
        document = {**everything, "components": packages, "dependencies": needs}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{path}: {len(packages)} packages")
    return 0


def _installed(files: Sequence[str]) -> set[str]:
    """What these requirements, and what they need in turn, are in this environment, pinned."""
    found: set[str] = set()
    wanted = [Requirement(line) for file in files for line in _lines(ROOT / file)]
    seen = set()
    while wanted:
        one = wanted.pop()
        if str(one) in seen:
            continue
        seen.add(str(one))
        package = metadata.distribution(one.name)
        found.add(f"{package.name}=={package.version}")
        for needed in map(Requirement, package.requires or ()):
            around = [{"extra": extra} for extra in one.extras or ("",)]
            if needed.marker is None or any(needed.marker.evaluate(extra) for extra in around):
                needed.marker = None
                wanted.append(needed)
    return found


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            yield from _lines(ROOT / line.removeprefix("-r ").strip())
        elif line and not line.startswith("#"):
            yield line


def _listed(pinned: Sequence[str]) -> Any:
    """What cyclonedx-bom makes of them."""
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "-", "--sv", SPEC, "--of", "JSON"]
    text = "".join(f"{one}\n" for one in pinned)
    done = subprocess.run(
        [*command, "--output-reproducible", "--no-validate"], input=text, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"cyclonedx-bom failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def _vendored() -> list[dict[str, Any]]:
    """The packages of npm whose files are in the dashboard's folder."""
    lock = json.loads((VENDORED / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    return [
        {
            "type": "library",
            "bom-ref": f"npm-{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:npm/{name}@{version}",
            "licenses": [{"license": {"id": lock[f"node_modules/{name}"]["license"]}}],
        }
        for name, version in lock[""]["dependencies"].items()
    ]


if __name__ == "__main__":
    sys.exit(audit() if sys.argv[1:] == ["audit"] else sbom(Path(sys.argv[2])))
