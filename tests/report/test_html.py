"""The page in a real browser: sorted, folded, light and dark, as narrow as a phone, and without a network."""

import re
import shutil
from dataclasses import replace

import pytest
from markupsafe import escape

from optkit.report import html

from .test_figures import LOAD, NOT_HELD, STAGES
from .test_table import BASELINE, INT8

pytestmark = pytest.mark.slow

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
NASTY = "<img src=x onerror=\"document.title='owned'\">&amp;"


def moved(value, relative=0.0):
    differences = {"mean": relative, "largest": relative, "relative_mean": relative, "relative_largest": relative}
    return {"value": value, **differences, "flips": 3}


LADDER = {"pytorch": {"value": 95.25}, "graph": moved(95.25), "engine": moved(95.2, 1e-6), "server": moved(95.2)}
INVARIANCE = {"padding": moved(0) | {"flips": 0}, "together": moved(0) | {"flips": 0}}
EVIDENCE = {"int8_gemm_share": 1.0, "encoder_gemms": 72, "covered_gemms": 72, "precision_by_type": {"MatMul i8": 36}}
ROWS = [
    replace(BASELINE, load=NOT_HELD, ladder=LADDER, invariance=INVARIANCE, examples=872),
    replace(
        INT8,
        ladder={"float": {"value": 95.25}, **LADDER, "pytorch": moved(95.0, 0.05), "engine": moved(93.0, 0.4)},
        stages=STAGES,
        load=LOAD,
        evidence=EVIDENCE,
        verdict="fail",
        reasons=[f"the rung 'engine' moves: {NASTY}"],
    ),
    replace(INT8, recipe="distill_6l", load={}, delta=-0.1, value=95.15, delta_ci95=[-0.3, 0.1], verdict="pass", reasons=[]),
]


@pytest.fixture(scope="module")
def browser():
    """A real browser without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: pip install -e '.[test]'")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser, looked for {', '.join(BROWSERS)}: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as running:
        # a sandbox of its own is what a browser lacks in a container, and the page is ours
        chromium = running.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the page of `ROWS`; every request for anything else, and every error in the page, fails the test."""
    path, wrong, contexts = tmp_path / "report.html", [], []
    path.write_text(html.render(ROWS))

    def show(width=1200, scheme="light"):
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        tab = contexts[-1].new_page()
        tab.on("request", lambda request: wrong.append(request.url) if request.url != path.as_uri() else None)
        tab.on("pageerror", lambda error: wrong.append(str(error)))
        tab.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        tab.goto(path.as_uri())
        return tab

    yield show
    for context in contexts:
        context.close()
    assert wrong == []


def column(tab, name):
    """The texts of a column of the sortable table, from top to bottom."""
    heads = tab.locator("table.sortable th").all_inner_texts()
    place = heads.index(name) + 1
    return tab.locator(f"table.sortable tbody td:nth-child({place})").all_inner_texts()


def test_a_click_on_a_heading_sorts_by_it_and_a_second_turns_it_round(open_page):
    tab = open_page()
    assert column(tab, "recipe") == ["baseline_fp32", "qat_gelu10", "distill_6l"]
    tab.get_by_role("button", name="delta", exact=True).click()
    assert column(tab, "delta") == ["-0.30", "-0.10", "+0.00"]  # by the number: as text +0.00 would be first
    tab.get_by_role("button", name="delta", exact=True).click()
    assert column(tab, "delta") == ["+0.00", "-0.10", "-0.30"]
    assert tab.locator("th[aria-sort]").all_inner_texts() == ["delta"]
    tab.get_by_role("button", name="recipe").click()
    assert column(tab, "recipe") == ["baseline_fp32", "distill_6l", "qat_gelu10"]
    tab.get_by_role("button", name="vs 16-bit @1").click()
    assert column(tab, "vs 16-bit @1") == ["1.50", "1.50", ""], "what was not measured comes last"


def test_every_section_and_picture_is_there(open_page):
    tab = open_page()
    titles = ["All recipes", "Beside the accuracy", "Refused, or not decided yet"]
    titles += ["Accuracy against latency", "Throughput against latency"]
    titles += ["Loss by stage", "The ladder", "Under load", "What ran in INT8"]
    assert tab.locator("h2").all_inner_texts() == titles
    pictures = tab.locator("svg").all()
    assert len(pictures) == 2 + 1 + 1 + 1 + 2  # batch sizes, throughput, stages of one recipe, the ladder, load of two
    for picture in pictures:
        box = picture.bounding_box()
        assert box["width"] > 200 and box["height"] > 120
    for mark in tab.locator("svg .disc, svg rect").all():  # nothing is drawn outside of its picture
        inside, around = mark.bounding_box(), mark.locator("xpath=ancestor::*[name()='svg']").bounding_box()
        assert around["x"] - 1 <= inside["x"] and inside["x"] + inside["width"] <= around["x"] + around["width"] + 1
        assert around["y"] - 1 <= inside["y"] and inside["y"] + inside["height"] <= around["y"] + around["height"] + 1


def test_load_is_told_with_what_batching_brings(open_page):
    table = open_page().locator("table", has_text="held/s, off").locator("tbody tr")
    assert table.count() == 2, "the third was not measured"
    rows = [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in table.all()]
    assert rows[0][1:6] == ["baseline_fp32", "fp32", "50", "none; best 66.2 ms at 20/s", "none"] and rows[0][-1] == ""
    assert rows[1][1:] == ["qat_gelu10", "int8", "50", "70", "160", "310", "320", "120", "121", "2.50 [2.10, 2.80]"]


def test_a_rung_that_went_too_far_is_open_and_named(open_page):
    tab = open_page()
    ladders = tab.locator("details", has_text="flips")
    assert [ladder.get_attribute("open") is not None for ladder in ladders.all()] == [False, True]
    assert "too far at engine" in ladders.nth(1).locator("summary").inner_text()
    assert ladders.nth(1).locator(".share.far").count() == 1
    ladders.nth(0).locator("summary").click()
    assert ladders.nth(0).get_by_text("server: padding").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 768, 1200])
def test_it_is_readable_at_every_width_light_and_dark(open_page, width, scheme):
    tab = open_page(width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width, "only the tables scroll sideways"
    sizes = tab.evaluate(
        """[...document.querySelectorAll("svg text.tick")].map(text => text.getBoundingClientRect().height)"""
    )
    assert min(sizes) >= 8
    ground, ink = (luminance(tab, "body", name) for name in ("backgroundColor", "color"))
    assert (ground > ink) == (scheme == "light")
    assert contrast(ground, ink) > 7
    for selector in (".soft", ".pass", ".fail", ".undecided", "svg .tick"):
        shown = tab.locator(selector)
        if shown.count():
            name = "fill" if selector.startswith("svg") else "color"
            assert contrast(ground, luminance(tab, selector, name)) > 4, selector


def luminance(tab, selector, name):
    """Relative luminance of a colour, as WCAG 2 defines it."""
    colour = tab.locator(selector).first.evaluate(f"element => getComputedStyle(element).{name}")
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_text_of_others_stays_text(browser, tmp_path):
    fields = {"recipe": NASTY, "task": NASTY, "precision": 'x" onmouseover="1', "engine": NASTY, "metric": NASTY}
    fields |= {"served_by": NASTY, "reasons": [NASTY], "sparsity": NASTY, "verdict": "fail"}
    stages = [{"stage": NASTY, "delta": -0.3, "ci95": None}]
    evidence = {"int8_gemm_share": 1.0, "covered_gemms": "1", "encoder_gemms": "2", "precision_by_type": {NASTY: 1}}
    row = replace(INT8, **fields, stages=stages, ladder={**LADDER, NASTY: {"value": 95.0}}, evidence=evidence)
    path = tmp_path / "report.html"
    path.write_text(html.render([BASELINE, row]))
    tab = browser.new_page()
    tab.goto(path.as_uri())
    assert tab.locator("img").count() == 0 and tab.locator("[onmouseover], [onerror]").count() == 0
    assert tab.title() == f"{BASELINE.task}: what each recipe costs and brings"
    assert NASTY in tab.locator("table.sortable").inner_text()
    tab.close()


def test_a_recipe_named_like_a_tag_is_text_in_the_pictures_too():
    text = html.render([ROWS[0], replace(ROWS[1], recipe="<script>alert('owned')</script>")])
    assert text.count("<script") == 1, "the page's own"
    assert "<title>&lt;script&gt;alert(&#39;owned&#39;)&lt;/script&gt; int8: 94.95 at" in text


def test_the_page_names_nothing_outside_of_itself():
    text = html.render(ROWS)
    assert not re.search(r"(?:src|href)\s*=|url\(|@import|https?://", text.replace(escape(NASTY), ""))
