"""`make fuzz`: feeds every parser CONFIGSTORE_FUZZ_INPUTS (100,000) inputs, and says whether it kept its promise.

With atheris the inputs follow from which branches they took; without it hypothesis draws them. Each target has a
process of its own, since atheris ends its own. An input that surprised a parser is printed; the exit code is 1.
"""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

INPUTS = int(os.environ.get("CONFIGSTORE_FUZZ_INPUTS") or 100_000)
LONGEST_INPUT = 70_000
HAS_ATHERIS = importlib.util.find_spec("atheris") is not None


def main(arguments: list[str]) -> int:
    """Run one target, named, or all."""
    if arguments:
        (_with_atheris if HAS_ATHERIS else _with_hypothesis)(arguments[0])
        return 0
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415  # a named target imports it instrumented

    means = "atheris" if HAS_ATHERIS else "hypothesis, as atheris is not installed"
    fell = 0
    for target in TARGETS:
        name = target.__name__
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz", name],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        count = re.findall(r"^Done (\d+) (?:runs|inputs)", done.stdout + done.stderr, re.MULTILINE)
        if done.returncode or not count:
            fell += 1
            print(f"{name}: fell\n{done.stdout}{done.stderr}", flush=True)
        else:
            print(f"{name}: {int(count[-1]):,} inputs by {means}, none got through", flush=True)
    return 1 if fell else 0


def _with_atheris(name: str) -> None:
    import atheris  # noqa: PLC0415

    with atheris.instrument_imports(include=["configstore", "sidecar"]):
        from tests.fuzz import targets  # noqa: PLC0415
    target = getattr(targets, name)
    with tempfile.TemporaryDirectory() as corpus:
        for number, text in enumerate((*targets.TARGETS[target], *targets.ODD)):
            Path(corpus, str(number)).write_bytes(text)
        options = [f"-runs={INPUTS}", f"-max_len={LONGEST_INPUT}", f"-artifact_prefix={corpus}/"]
        atheris.Setup([sys.argv[0], *options, corpus], target)
        atheris.Fuzz()


def _with_hypothesis(name: str) -> None:
    from hypothesis import HealthCheck, given, settings  # noqa: PLC0415

    from tests.fuzz import targets  # noqa: PLC0415

    target, count = getattr(targets, name), 0

    @settings(
        max_examples=min(1000, INPUTS), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(targets.altered(target))
    def some(text: bytes) -> None:
        nonlocal count
        count += 1
        target(text)

    while count < INPUTS:
        some()
    print(f"Done {count} inputs")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
