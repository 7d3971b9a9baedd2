"""The picture of a report: a real PNG of the asked size, or the reason why not."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bitwright.arch.errors import ConfigError, ToolError
from bitwright.reports import report
from bitwright.reports.screenshot import find_chromium, main, screenshot

Rows = list[dict[str, Any]]


@pytest.mark.skipif(find_chromium() is None, reason="no chromium on PATH to draw the report")
def test_picture_has_the_asked_size(
    make_rows: Callable[..., Rows], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, out = report(make_rows(5), tmp_path / "report.html"), tmp_path / "report.png"
    assert main([str(page), str(out), "--width", "900", "--height", "640", "--sections", "tradeoffs"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    data = out.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (900, 640)
    assert len(data) > 20_000


def test_missing_chromium_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    page = tmp_path / "page.html"
    page.write_text("<p>")
    words = (
        "chromium: not found on PATH (tried chromium, chromium-browser, google-chrome-stable, google-chrome, chrome); "
        "install it, e.g. `apt install chromium` on Debian"
    )
    with pytest.raises(ToolError) as raised:
        screenshot(page, tmp_path / "out.png")
    assert str(raised.value) == words
    assert main([str(page), str(tmp_path / "out.png")]) == 3
    assert capsys.readouterr().err == f"error: {words}\n"


def test_wrong_pages_sizes_and_folders_are_named(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(ConfigError) as raised:
        screenshot(page, tmp_path / "out.png")
    assert str(raised.value) == f"page = {page}: no such file (write it with bitwright report STORE -o page.html)"
    page.write_text("<p>")
    with pytest.raises(ConfigError) as raised:
        screenshot(page, tmp_path / "out.png", width=50)
    assert str(raised.value) == "width = 50: must be in 100..20000 pixels"
    with pytest.raises(ConfigError) as raised:
        screenshot(page, tmp_path / "none" / "out.png")
    assert str(raised.value) == (
        f"out = {tmp_path / 'none' / 'out.png'}: its folder must exist (create {tmp_path / 'none'})"
    )
