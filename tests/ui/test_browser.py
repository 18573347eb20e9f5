"""The page in a real browser: live, by keyboard alone, on a small screen, in the dark, for a screen reader."""

import contextlib
import json

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.harness.waiting import wait_until

pytestmark = pytest.mark.xdist_group("ui")

PAGES = {
    "overview": "/",
    "paths": "/tree/certs",
    "mapping": "/mapping/overrides?q=post",
    "path": "/path/overrides/postfix.cf",
    "private path": "/path/overrides/sasl.txt",
    "conflicts": "/conflicts",
    "leases": "/leases",
    "store": "/store",
    "nothing": "/path/no/such",
}


@pytest.fixture(autouse=True)
def screen(browser):
    """Begin each test with a wide, light screen."""
    look(browser)


def look(browser, width=1280, scheme="light"):
    """Set the size of the screen and whether it is dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def visit(browser, reading, page):
    """Open a page once more, as a link does."""
    browser.get(f"{reading.origin}{PAGES[page]}")


def text(browser):
    """Return what is to be read, in one step: the page may change between two."""
    return browser.execute_script("return document.body ? document.body.innerText : ''")


def shows(browser, words, deadline=30):
    """Wait until the page that is open, or the one that is about to be, shows some words."""

    def shown():
        with contextlib.suppress(WebDriverException):  # one page makes room for the next
            return words in text(browser)

    wait_until(shown, deadline, what=f"{words} on the page")


def click(browser, selector):
    """Click on what a selector finds, in one step."""
    browser.execute_script("document.querySelector(arguments[0]).click()", selector)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def focused_text(browser):
    return browser.execute_script("return document.activeElement.innerText")


def passes(browser, axe, what, rules=()):
    """Have the checker find nothing on the page that is open, by some rules or by all."""
    browser.execute_script(f"if (!window.axe) {{ {axe} }}")
    found = browser.execute_async_script(
        "const [how, done] = arguments; axe.run(how).then(found => done(JSON.stringify(found.violations)))",
        {"runOnly": list(rules)} if rules else {},
    )
    told = [f"{each['id']}: {each['nodes'][0]['html']}" for each in json.loads(found)]
    assert not told, what


def test_what_changes_is_shown_without_a_reload(browser, reading, found):
    visit(browser, reading, "overview")
    browser.execute_script("window.here = 1; document.querySelector('#timeline a').focus()")
    focused = focused_text(browser)
    for name in ("certs/live-1.txt", "certs/live-2.txt"):
        found.put(name, "now\n")
        shows(browser, name)
    wait_until(lambda: "≤ 0." in text(browser) or "not yet known" in text(browser), 30)
    said = browser.find_element(By.ID, "said")
    assert said.get_attribute("aria-live") == "polite"
    assert said.get_attribute("textContent")
    assert browser.execute_script("return window.here") == 1
    assert focused_text(browser) == focused, "the focus stays where it was"


def test_the_token_does_not_stay_in_the_address(browser, reading):
    browser.get(reading.url)
    wait_until(lambda: "token" not in browser.current_url, 20)
    assert browser.execute_script("return document.cookie") == "", "no script can read the cookie"


@pytest.mark.parametrize("page", PAGES)
def test_every_page_fits_a_small_screen_and_passes_the_checker_light_and_dark(browser, reading, axe, page):
    visit(browser, reading, page)
    for width, scheme in ((1280, "light"), (1280, "dark"), (375, "light")):
        look(browser, width, scheme)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{page} is {wide} px wide on a screen of {width}"
        rules = () if scheme == "light" else ("color-contrast",)  # nothing else differs in the dark
        passes(browser, axe, f"{page}, {width} px, {scheme}", rules)
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = browser.execute_script(ground)
    look(browser, 1280, "dark")
    assert browser.execute_script(ground) != light


def test_everything_can_be_reached_and_used_by_keyboard_alone(browser, reading):
    visit(browser, reading, "path")  # of which nothing comes or goes meanwhile
    press(browser, Keys.TAB)
    assert focused_text(browser) == "Skip to the content"
    press(browser, Keys.ENTER)
    assert browser.execute_script("return document.activeElement.id") == "main"
    visit(browser, reading, "path")
    count = (
        "return [...document.querySelectorAll('a, button, input, [tabindex=\"0\"]')]"
        ".filter(each => each.checkVisibility()).length"
    )
    wanted = wait_until(lambda: browser.execute_script(count), 30, what="the page to be drawn")
    reached = set()
    for _ in range(wanted + 5):
        press(browser, Keys.TAB)
        focused = browser.execute_script(
            "const here = document.activeElement; return here === document.body ? null"
            " : [here, getComputedStyle(here).outlineStyle, here.outerHTML]"
        )
        if focused is None:
            break
        reached.add(focused[0].id)
        assert focused[1] != "none", f"no focus to be seen: {focused[2]}"
    assert len(reached) == wanted
    visit(browser, reading, "overview")
    for _ in range(100):
        press(browser, Keys.TAB)
        if focused_text(browser) == "overrides":
            break
    press(browser, Keys.ENTER)
    wait_until(lambda: browser.current_url.endswith("/mapping/overrides"), 20)
    browser.find_element(By.ID, "q").send_keys("postfix", Keys.ENTER)
    wait_until(lambda: "q=postfix" in browser.current_url, 20)
    shows(browser, "overrides/postfix.cf")
    rows = "return [...document.querySelectorAll('#records tbody tr')].map(row => row.querySelector('a').text)"
    assert browser.execute_script(rows) == ["overrides/postfix.cf"]


def test_it_has_landmarks_headings_and_tables_with_names(browser, reading):
    visit(browser, reading, "overview")
    for landmark in ("header", "nav", "main", "footer"):
        assert len(browser.find_elements(By.TAG_NAME, landmark)) == 1
    assert len(browser.find_elements(By.TAG_NAME, "h1")) == 1
    unnamed = (
        "return [...document.querySelectorAll('table')].filter("
        "each => !each.caption.textContent || !each.querySelector('thead th[scope=col]')).length"
    )
    assert browser.execute_script(unnamed) == 0


def test_a_change_is_confirmed_and_made_in_the_browser(browser, writing, found, axe):
    first = found.put("certs/browser.txt", "first\n")
    found.put("certs/browser.txt", "second\n")
    browser.get(writing.url)
    browser.get(f"{writing.origin}/path/certs/browser.txt")
    passes(browser, axe, "a history with what can be restored")
    click(browser, f"#version-{first} a.button")
    shows(browser, "It becomes what it was at revision")
    passes(browser, axe, "a confirmation")
    click(browser, "form.confirm button")
    shows(browser, f"was restored as of revision {first}")
    assert found.get("certs/browser.txt") == "first\n"
    browser.get(f"{writing.origin}/conflicts")
    passes(browser, axe, "conflicts that can be resolved")


def test_no_request_has_left_for_another_host_and_no_script_has_failed(browser, reading, writing):
    sent = [json.loads(each["message"])["message"] for each in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in sent if each["method"] == "Network.requestWillBeSent"]
    urls = [url for url in urls if url.startswith(("http:", "https:", "ws:", "wss:"))]  # not its own first page
    assert len(urls) > 20
    ours = (f"{reading.origin}/", f"{writing.origin}/")
    assert not [url for url in urls if not url.startswith(ours)]
    trouble = [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert not [each for each in trouble if "/path/no/such" not in each]
