"""One cluster with faults for all tests of the page, and pages that may write and that may not."""

import os
import shutil
from pathlib import Path

import pytest

from tests.harness.programs import missing
from tests.ui.cluster import Ui, cluster

HERE = Path(__file__).parents[2]
AXE = Path(os.environ.get("CONFIGSTORE_TEST_AXE", HERE / ".venv/axe/axe.min.js"))


@pytest.fixture(scope="session")
def found(etcd, tmp_path_factory):
    """Return the cluster; its faults have shown."""
    with cluster(etcd.endpoint, f"/ui-{os.getpid()}", tmp_path_factory.mktemp("ui")) as running:
        yield running


@pytest.fixture(scope="session")
def reading(found):
    """Return a page that only reads."""
    ui = Ui(found)
    yield ui
    assert ui.end() == 0


@pytest.fixture(scope="session")
def writing(found):
    """Return a page that may write."""
    ui = Ui(found, "--write")
    yield ui
    assert ui.end() == 0


@pytest.fixture(scope="session")
def browser(reading, tmp_path_factory):
    """Return a headless Chromium that has opened the address of the page that only reads."""
    from selenium import webdriver  # noqa: PLC0415 - takes half a second
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 - as above

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        missing("Chromium with its driver", "tests/get-browser .venv/axe")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for flag in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=Service(driver))
    try:
        running.get(reading.url)
        yield running
    finally:
        running.quit()


@pytest.fixture(scope="session")
def axe():
    """Return axe-core's source."""
    if not AXE.exists():
        missing("axe-core", "tests/get-browser .venv/axe")
    return AXE.read_text()
