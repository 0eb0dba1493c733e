"""A page, read back."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a page holds: tags with their attributes, and the text outside of style and script."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text, self.inside = "", ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = "" if tag in ("style", "script") else self.inside

    def handle_data(self, data):
        self.text += data if self.inside not in ("style", "script") else ""

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def classes(self, tag: str) -> list[str]:
        return [attrs["class"] for attrs in self.all(tag) if "class" in attrs]

    @property
    def pictures(self) -> list[str]:
        return re.findall(r'<figcaption class="(.*?)-node">', self.source)

    @property
    def captions(self) -> list[str]:
        return re.findall(r'<figcaption class=".*?-node">(.*?)</figcaption>', self.source)
