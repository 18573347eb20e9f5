"""What 0.1.0 let operators write down is still understood, as the deprecation policy says."""

import json
import subprocess
import sys
from pathlib import Path

from configstore import presets
from tests.upgrade.names import names

PAGE = Path(__file__).parents[2] / "docs/upgrading.md"
RETIRED = {"overrides-snappymail"}
"""Mappings that are gone. Their variables are told and ignored."""


def test_every_name_of_0_1_0_goes_on(old_environment):
    script = Path(__file__).with_name("names.py")
    done = subprocess.run([sys.executable, script], env=old_environment, capture_output=True, check=True)
    before = set(json.loads(done.stdout))
    assert len(before) > 500
    missing = {name for name in before - names() if not any(f": {each}," in name for each in RETIRED)}
    assert not missing


def test_what_is_gone_is_told_by_the_program_and_on_the_page():
    assert presets.retired().keys() == RETIRED
    assert all(f"`{name}`" in PAGE.read_text() for name in RETIRED)
