"""Check the pages of the site in a browser, as they are seen on a desk and on a phone.

    python -m tools.site build/docs [--shots build/screenshots] [--only NAME]...

Each page is opened by Chromium, 1280 and 400 pixels wide, light and dark, and must fit: nothing
is wider than the window, no line of code or output is cut, no console message is an error, and a
page of the API reference is no longer than one reads. The pictures of what was seen are left in
build/screenshots. Needs the system's Chromium (Debian: chromium).
"""

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

DESK, PHONE = 1280, 400  # CSS pixels
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
#: The longest page of the API reference, in CSS pixels at DESK.
LONGEST = 6000

# What sticks out: the page itself, or a box that has to be scrolled sideways.
_OVERFLOW = """
() => {
    const found = [];
    const root = document.documentElement;
    if (root.scrollWidth > root.clientWidth)
        found.push(`the page is ${root.scrollWidth} px wide`);
    const boxes = "pre, .table-wrapper, table, dt.sig, img, h1, h2, h3, p";
    for (const box of document.querySelectorAll(boxes.replace(/[^,]+/g, "article $&"))) {
        const name = `${box.tagName.toLowerCase()} ` +
                     JSON.stringify(box.textContent.trim().slice(0, 40));
        if (box.scrollWidth > box.clientWidth + 1 && !box.matches("table"))
            found.push(`${name} is cut by ${box.scrollWidth - box.clientWidth} px`);
        else if (box.getBoundingClientRect().right > root.clientWidth + 1)
            found.push(`${name} ends beyond the window`);
    }
    return found;
}
"""

# What a page shows by mistake only: markup on any of them, private names in a signature.
_MARKUP = ("~~~{", "```{", ":start-after:", "[[[cog", "](")
_PRIVATE = ("Unpack[", "_Connection", "<greenwait.", " object at 0x")


def _chromium() -> str:
    """Return the program, or end this one and say what to install."""
    found = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if found is None:
        sys.exit("needs Chromium: apt-get install chromium")
    return found


def _is_reference(name: str) -> bool:
    return name == "api" or name.startswith("api/")


def _complaints(page: Page, name: str, width: int) -> Iterator[str]:
    """Yield what is wrong with a page that has been opened."""
    yield from page.evaluate(_OVERFLOW)
    pictures = "[...document.images].filter(each => !each.naturalWidth).map(each => each.src)"
    yield from (f"no picture: {each}" for each in page.evaluate(pictures))
    text = page.inner_text("article")
    yield from (f"shows {each!r}" for each in _MARKUP if each in text)
    if width == DESK and _is_reference(name):
        height = page.evaluate("document.documentElement.scrollHeight")
        if height > LONGEST:
            yield f"{height} px high, more than {LONGEST}"
        yield from (f"shows {each!r}" for each in _PRIVATE if each in text)


def _look(page: Page, path: Path, name: str, shots: Path, most: int) -> Iterator[str]:
    """Open one page, look at it in every way, and yield what is wrong with it."""
    told: list[str] = []
    page.on("console", lambda each: told.append(each.text) if each.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("requestfailed", lambda request: told.append(f"not loaded: {request.url}"))
    page.goto(path.as_uri(), wait_until="load")
    for width in (DESK, PHONE):
        page.set_viewport_size({"width": width, "height": 800})
        yield from (f"{width} px: {each}" for each in _complaints(page, name, width))
        height = page.evaluate("document.documentElement.scrollHeight")
        # To make the window higher is much faster than a picture of more than the window.
        page.set_viewport_size({"width": width, "height": min(height, most)})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)  # it changes colours, and no sizes
            shot = shots / f"{width}-{scheme}" / f"{name}.png"
            shot.parent.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=shot)
    yield from told


def check(
    browser: Browser, site: Path, shots: Path, most: int, only: Sequence[str]
) -> Iterator[str]:
    """Look at every page in every way; yield a line for each thing that is wrong."""
    pages = {str(each.relative_to(site).with_suffix("")): each for each in site.rglob("*.html")}
    for name, path in sorted(pages.items()):
        if only and name not in only:
            continue
        page = browser.new_page()
        yield from (f"{name}, {each}" for each in _look(page, path, name, shots, most))
        page.close()


def main() -> None:
    """Check the site, print what is wrong, and exit with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("site", type=Path)
    parser.add_argument("--shots", type=Path, default=Path("build/screenshots"))
    parser.add_argument("--height", type=int, default=1600, help="of a picture, in CSS pixels")
    parser.add_argument("--only", action="append", default=[], help="a page's name, as api/pool")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        # Its sandbox wants namespaces, which a container's root has not; the pages are our own.
        browser = playwright.chromium.launch(
            executable_path=_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        site = arguments.site.resolve()
        wrong = [*check(browser, site, arguments.shots, arguments.height, arguments.only)]
        browser.close()
    print("\n".join(wrong))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
