"""Pages of the site that lie outside ``docs/``, and links that lead there and back.

A link is written as it leads in the repository, because that is where most people read a page. The site holds the pages
and files below; a link to anything else of the repository becomes its text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "project/overview.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "benchmarks/README.md": "project/benchmarks.md",
    "examples/adapt_and_predict.ipynb": "project/adapt_and_predict.md",
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
LINK_WITH_TEXT = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)|(!\[[^\]]*\])\(([^)\s]+)\)")
CODE = re.compile(r"(^```.*?^```|^<div>.*?</div>$|^ {4}.*?$)", flags=re.DOTALL | re.MULTILINE)


def slug(heading: str, separator: str = "-") -> str:
    """The anchor that forges give a heading: the links in the pages are written for it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def source_of(page: str) -> str:
    """Path in the repository of a page of the site."""
    return {site: path for path, site in PAGES.items()}.get(page, f"docs/{page}")


def resolve(target: str, page: str) -> str | None:
    """Path in the repository that a link on a page leads to, or None if it leads elsewhere."""
    if re.match(r"[a-z]+:|#|/", target):
        return None
    folder = PurePosixPath(source_of(page)).parent
    return os.path.normpath(folder / target.partition("#")[0])


def place(path: str) -> str | None:
    """Path in the site of a file of the repository, or None if the site has no such file."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in PAGES:
        return PAGES[path]
    return path if path.endswith(".json") and (ROOT / path).is_file() else None


def moved(markdown: str, page: str) -> str:
    """The text of a page with its links as they lead in the site."""

    def link(match: re.Match[str]) -> str:
        text, target = (f"[{match[1]}]", match[2]) if match[2] else (match[3], match[4])
        path = resolve(target, page)
        if path is None:
            return match[0]
        if (there := place(path)) is None:
            return match[1] or ""
        relative = os.path.relpath(there, PurePosixPath(page).parent)
        anchor = target[target.index("#") :] if "#" in target else ""
        return f"{text}({relative}{anchor})"

    parts = CODE.split(markdown)
    return "".join(part if number % 2 else LINK_WITH_TEXT.sub(link, part) for number, part in enumerate(parts))


def linked_files(page: str, text: str) -> Iterator[str]:
    """Files of the repository outside ``docs/`` that a page links and that are no pages."""
    for target in LINK.findall(text):
        path = resolve(target, page)
        if path is not None and not path.startswith("docs/") and path not in PAGES and place(path):
            yield path


def text_of(path: str) -> str:
    """The Markdown of a page of the repository; of a notebook its cells and what they showed."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not path.endswith(".ipynb"):
        return text
    return "\n\n".join(part for cell in json.loads(text)["cells"] for part in parts_of(cell))


def parts_of(cell: dict[str, Any]) -> Iterator[str]:
    """A notebook's cell as Markdown: text, or code and its results, HTML where they have it."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "text/html" in data:
            yield f"<div>{''.join(data['text/html'])}</div>"
        elif "text/plain" in data:
            yield f"```text\n{''.join(data['text/plain'])}\n```"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give headings the anchors that the links were written for."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slug
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from the top of the repository, and the figures that pages link."""
    for path, site in PAGES.items():
        files.append(File.generated(config, site, content=text_of(path)))
    for page in list(files.documentation_pages()):
        for path in linked_files(page.src_uri, page.content_string):
            if files.get_file_from_path(path) is None:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of a page to their places in the site."""
    return moved(markdown, page.file.src_uri)
