"""The locks: for each set of packages every version and the SHA-256 of every accepted file.

`make lock` writes them from the requirements and from constraints.txt. uv resolves; this module
drops what is for other platforms, adds the builds of accepted.txt, and keeps CUDA's libraries
apart: pip installs those of cuda.txt only if the build of torch that it finds requires them.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from packaging.markers import Environment, Marker, default_environment

LOCKS = Path(__file__).resolve().parent
ROOT = LOCKS.parent
# Lock -> the requirements that it is compiled from.
SETS: dict[str, tuple[str, ...]] = {
    "installer": ("locks/installer.in",),
    "run": ("requirements.txt",),
    "test": ("requirements.txt", "requirements-dev.txt"),
    "bench": ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt"),
    "image-cpu": ("images/cpu/requirements.txt",),
    "image-trainer": ("images/trainer/requirements.txt",),
    "image-server": ("images/server/requirements.txt",),
    "tools": ("locks/tools.in",),
}
# Locks that are parts of those: torch alone, for the first step of an installation, and CUDA's
# libraries, as constraints.
PARTS = ("torch", "cuda")
# Their authors publish these as source only: they are built from hashed sources. Others are wheels.
SOURCE_ONLY = ("kfp-server-api",)
_OF_CUDA = re.compile(r"cuda-|nvidia-(?!ml-py$)|triton$")  # nvidia-ml-py is a package of ours
_PYTHON = "3.11.5"  # the least that the packages of all sets accept
_MACHINES = {"linux": ("x86_64", "aarch64"), "darwin": ("x86_64", "arm64")}
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: *; *(?P<marker>[^\\]+?))? *\\?$")
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class Pin:
    """One package of a lock.

    marker: environments that it is for, "" for all. via: the packages and the requirement files
    ("-r FILE") that ask for it.
    """

    name: str
    version: str
    marker: str = ""
    hashes: tuple[str, ...] = ()
    via: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The pin as pip reads it."""
        marker = f" ; {self.marker}" if self.marker else ""
        lines = [f"{self.name}=={self.version}{marker}", *(f"--hash={h}" for h in self.hashes)]
        return " \\\n    ".join(lines) + f"\n    # via {', '.join(self.via)}\n"


def read_pins(lock: Path) -> list[Pin]:
    """Return the packages of a lock, as uv or `write_lock` wrote it."""
    pins: list[Pin] = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if found := _PIN.match(line):
            pins.append(Pin(found["name"], found["version"], (found["marker"] or "").strip()))
        elif digest := _HASH.search(line):
            pins[-1] = replace(pins[-1], hashes=(*pins[-1].hashes, digest[1]))
        elif line.startswith("    #"):
            sources = line.strip(" #").removeprefix("via").strip()
            via = tuple(sources.split(", ")) if sources else ()
            pins[-1] = replace(pins[-1], via=pins[-1].via + via)

    return pins


def accepted() -> dict[tuple[str, str], tuple[str, ...]]:
    """Hashes of accepted.txt, by name and version."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for line in (LOCKS / "accepted.txt").read_text(encoding="utf-8").splitlines():
        if pin := _PIN.match(line.partition(" ")[0]):
            key = (pin["name"], pin["version"])
            found[key] = (*found.get(key, ()), *_HASH.findall(line))

    return found


def main() -> None:
    """Write all locks."""
    cuda: dict[str, Pin] = {}
    for name, requirements in SETS.items():
        pins = _compile(requirements)
        apart = {pin.name: pin for pin in pins if _OF_CUDA.match(pin.name)}
        kept = [pin for pin in pins if pin.name not in apart]
        further = ["--constraint cuda.txt"] if apart else []
        _write(name, ", ".join(requirements), kept, further)

        cuda |= apart
        torch = [replace(pin, via=("the locks",)) for pin in kept if pin.name == "torch"]
        if torch:
            _write("torch", "the locks with torch", torch)

    libraries = [cuda[name] for name in sorted(cuda)]
    _write("cuda", "the locks with torch", libraries, checked=False)


def _compile(requirements: Iterable[str]) -> list[Pin]:
    """Resolve requirements; return the pins for the supported platforms."""
    options = ["--constraints", "constraints.txt", "--generate-hashes", "--universal"]
    options += ["--python-version", _PYTHON, "--only-binary", ":all:", "--no-config", "--quiet"]
    for package in SOURCE_ONLY:
        options += ["--no-binary", package]

    resolved = LOCKS / ".resolved"
    uv = Path(sys.executable).with_name("uv")
    try:
        subprocess.run(
            [uv, "pip", "compile", *requirements, *options, "--output-file", resolved],
            cwd=ROOT,
            check=True,
        )
        pins = read_pins(resolved)
    finally:
        resolved.unlink(missing_ok=True)

    further = accepted()

    return [_cleaned(pin, further) for pin in pins if any(_applies(pin))]


def _cleaned(pin: Pin, further: dict[tuple[str, str], tuple[str, ...]]) -> Pin:
    """Return a pin with the accepted builds, and without a marker that always holds."""
    return replace(
        pin,
        marker="" if all(_applies(pin)) else pin.marker,
        hashes=tuple(sorted({*pin.hashes, *further.get((pin.name, pin.version), ())})),
        via=tuple(source for source in pin.via if not source.startswith("-c ")),
    )


def _applies(pin: Pin) -> Iterator[bool]:
    """Whether a pin is for each of the supported platforms."""
    for system, machines in _MACHINES.items():
        for machine in machines:
            environment = _environment(system, machine)
            yield not pin.marker or Marker(pin.marker).evaluate(environment)


def _environment(system: str, machine: str) -> Environment:
    return default_environment() | {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": system.capitalize(),
        "python_full_version": _PYTHON,
        "python_version": _PYTHON.rpartition(".")[0],
        "sys_platform": system,
    }


def _write(
    name: str, source: str, pins: list[Pin], further: Iterable[str] = (), *, checked: bool = True
) -> None:
    """Write a lock where it changes; its options hold for whoever installs from it."""
    lines = [f"# Compiled by `make lock` from {source}."]
    if checked:
        names = {pin.name for pin in pins}
        lines += ["--require-hashes", "--only-binary :all:"]
        lines += [f"--no-binary {package}" for package in SOURCE_ONLY if package in names]
    lines += further

    text = "\n".join(lines) + "\n\n" + "".join(map(str, pins))
    lock = LOCKS / f"{name}.txt"
    if not lock.exists() or lock.read_text(encoding="utf-8") != text:
        lock.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
