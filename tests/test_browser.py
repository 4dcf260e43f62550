"""``report.html`` in a real browser: it draws, filters, plays and zooms, on narrow screens and by keyboard."""

import shutil

import pytest
from test_page import Made

from clockwork.report import write_html
from clockwork.tasks import Generation
from clockwork.training import open_results, sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    sweep(Generation(runs=2, networks=("cwrnn", "srn"), sizes=(100,), epochs=3), folder)
    return write_html(open_results(folder), folder)


@pytest.fixture
def opened(browser, report):
    """Opens a report; at the end, the page has said nothing on the console and asked for nothing."""
    pages, said = [], []

    def open_(path=report, **settings):
        page = browser.new_context(**settings).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: asked.url.startswith(("file:", "blob:", "data:")) or said.append(asked.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.context.close()
    assert said == []


def rows(page):
    return page.locator("#rows tbody tr").count()


def test_filters_act_on_runs_figures_and_sounds(opened):
    page = opened()
    assert (rows(page), page.locator("#sounds audio:visible").count()) == (20, 15)
    page.select_option("#filter-network", "srn")
    page.select_option("#filter-data", "choir")
    assert (rows(page), page.locator("#sounds audio:visible").count()) == (2, 2)
    page.fill("#filter-run", "1")
    assert rows(page) == 1
    assert page.text_content("#count") == "1 runs, of which 0 diverged."
    assert page.locator(".plot canvas").count() == 2
    page.fill("#filter-run", "7")
    assert page.text_content("#errors") == "No run to show."


def test_a_sound_has_the_length_of_a_second(opened):
    page = opened()
    page.evaluate("document.querySelector('audio').preload = 'metadata'")
    page.wait_for_function("document.querySelector('audio').duration > 0")
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(1, abs=0.01)


def test_hovering_names_a_run_and_dragging_zooms(opened):
    page = opened(viewport={"width": 1200, "height": 900})
    over = page.locator("#errors .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
    page.wait_for_function("document.getElementById('errors-said').textContent.includes('run')")
    before = page.evaluate("document.querySelector('#curves canvas').toDataURL()")
    over = page.locator("#curves .u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 25, steps=5)
    page.mouse.up()
    page.wait_for_function("before => document.querySelector('#curves canvas').toDataURL() !== before", arg=before)


def test_the_keyboard_reaches_and_works_the_filters(opened):
    page = opened()
    page.focus("#filter-network")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#filter-network") != ""
    assert rows(page) == 10
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter-data"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_and_a_dark_one(opened, scheme):
    page = opened(viewport={"width": 360, "height": 700}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    paper, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    assert paper != ink


def test_hostile_names_and_infinite_errors(opened, tmp_path):
    page = opened(write_html(Made().results(), tmp_path))
    assert rows(page) == 48
    assert "of which 4 diverged" in page.text_content("#count")
    page.select_option("#filter-network", Made.networks[1])
    assert rows(page) == 24


def test_without_javascript_the_table_and_the_configuration_can_be_read(browser, report):
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    assert "CW-RNN" in page.inner_text("#summary")
    assert page.is_visible("noscript p")
    page.context.close()
