"""Draws a report in headless Chromium: to a PNG (`python -m bitwright.reports.screenshot`) or to its final DOM.

Every run uses a fresh profile in a temporary folder and no network feature of the browser.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bitwright.arch.errors import BitwrightError, ConfigError, ToolError

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
"""Executables tried, in this order."""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]

TIMEOUT_S = 120


def find_chromium() -> str | None:
    """Path of the first installed Chromium or Chrome on PATH, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def render_dom(page: Path, width: int = 1400, height: int = 1000) -> str:
    """The page's HTML after its scripts ran. Raises as `screenshot`."""
    return _run(page, ["--dump-dom"], width, height)


def screenshot(page: Path, out: Path, width: int = 1400, height: int = 1000, sections: str = "") -> Path:
    """Write the top `width` x `height` CSS pixels of `page` to the PNG `out`.

    sections : comma-separated ids of the report's sections to show, e.g. "tradeoffs,roofline"; "" shows all.
    Raises ConfigError for a missing page, a size outside 100..20000 or an unwritable `out`; ToolError when
    Chromium is missing or fails.
    """
    if not out.parent.is_dir():
        raise ConfigError(f"out = {out}: its folder must exist (create {out.parent})")
    with tempfile.TemporaryDirectory(prefix="bitwright-screenshot-") as folder:
        # Chromium reports success without writing when its target is not writable; copying ourselves does not.
        picture = Path(folder) / "page.png"
        _run(page, [f"--screenshot={picture}"], width, height, sections)
        if not picture.is_file():
            raise ToolError(f"chromium: wrote no picture of {page} (try a smaller --width x --height)")
        try:
            shutil.copyfile(picture, out)
        except OSError as error:
            raise ConfigError(f"out = {out}: must be a writable file ({error.strerror})") from error
    return out


def _run(page: Path, action: list[str], width: int, height: int, sections: str = "") -> str:
    if not page.is_file():
        raise ConfigError(f"page = {page}: no such file (write it with bitwright report STORE -o {page.name})")
    for name, value in (("width", width), ("height", height)):
        if not 100 <= value <= 20000:
            raise ConfigError(f"{name} = {value}: must be in 100..20000 pixels")
    program = find_chromium()
    if program is None:
        raise ToolError(
            f"chromium: not found on PATH (tried {', '.join(NAMES)}); install it, e.g. `apt install chromium` on Debian"
        )
    address = page.resolve().as_uri() + (f"#only={sections}" if sections else "")
    with tempfile.TemporaryDirectory(prefix="bitwright-chromium-") as profile:
        # Virtual time lets pending frames and timers finish before the page is captured.
        command = [program, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        command += ["--virtual-time-budget=2000", *action, address]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise ToolError(f"{program}: no answer for {page} within {TIMEOUT_S} s") from error
    if done.returncode != 0:
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise ToolError(f"{program}: exit code {done.returncode} for {page}: {tail}")
    return done.stdout


def main(arguments: list[str] | None = None) -> int:
    """Command line: `page out [--width W] [--height H] [--sections IDS]`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bitwright.reports.screenshot", description=__doc__)
    parser.add_argument("page", type=Path, help="a report written by `bitwright report`")
    parser.add_argument("out", type=Path, help="the PNG to write")
    parser.add_argument("--width", type=int, default=1400, help="CSS pixels (default 1400)")
    parser.add_argument("--height", type=int, default=1000, help="CSS pixels (default 1000)")
    parser.add_argument("--sections", default="", help="only these, e.g. tradeoffs,roofline")
    given = parser.parse_args(arguments)
    try:
        print(screenshot(given.page, given.out, given.width, given.height, given.sections))
    except BitwrightError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
