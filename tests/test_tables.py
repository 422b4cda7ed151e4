"""Tables and figures in Markdown are what the stored runs say; a marker that leads nowhere is an error."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lazymlx.errors import UsageError
from lazymlx.eval import judged
from lazymlx.tables import PAGES, RESULTS, Page, main, speed_runs

SPEED = "speed-20261126-224646-llama-2-7b-nvidia-h100-80gb-hbm3.json"
CURVE = "speed-20261126-142032-llama-2-7b-nvidia-h100-80gb-hbm3.json"
QUALITY = "quality-20261126-1443-embedded-nvidia-h100.json"
TEXT = """before

<!-- quality: quality.json 1024 dense lazy -->
old
<!-- /quality -->
between
<!-- quality-figure: quality.json -->
<!-- /quality-figure -->

<!-- speed: speed.json 4096 16384 -->
old
<!-- /speed -->

<!-- growth-figure: speed.json -->
<!-- /growth-figure -->

<!-- curve: curve.json -->
<!-- /curve -->
after
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A file in the folder above its runs."""
    (tmp_path / "results").mkdir()
    for source, name in ((SPEED, "speed.json"), (QUALITY, "quality.json"), (CURVE, "curve.json")):
        shutil.copy(RESULTS / source, tmp_path / "results" / name)
    (tmp_path / "page.md").write_text(TEXT, encoding="utf-8")
    return tmp_path / "page.md"


def run(page: Path, *flags: str) -> int:
    return main([str(page), "--results", str(page.parent / "results"), *flags])


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(PAGES[0].parent)))
def test_the_projects_own_texts_show_its_stored_runs(path: Path) -> None:
    found = Page(path)
    assert found.outdated() == [], "run scripts/tables"
    kinds = {block[1] for block in found.blocks}
    assert "speed" in kinds and kinds & {"quality", "judged"}


def test_texts_and_stored_files_name_each_other() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in (*PAGES, RESULTS / "LOG.md"))
    named = set(re.findall(r"runs\.csv|\w+-20\d{6}[\w.-]*\.(?:jsonl\.gz|json|png)", texts))
    stored = {path.name for path in RESULTS.iterdir() if path.suffix != ".md"}
    assert not named - stored, "named, and not in scripts/results"
    assert not stored - named, "in scripts/results, and named by no text"


def test_what_is_between_the_markers_is_made_from_the_runs(page: Path) -> None:
    assert run(page) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n") and "\nbetween\n" in text and text.endswith("\nafter\n") and "old" not in text
    assert "| lazy 9:0.15 | 200 |" in text and "| static" not in text
    assert "| 4,096 | early | 47 | 2.77x |" in text and "| 16,384 | steep |" in text and "| 1,024 |" not in text
    assert "| decode, tokens/s | 154.7 |" in text
    assert "](results/quality.png)" in text and "](results/speed-growth.png)" in text
    assert (page.parent / "results" / "quality.png").is_file()
    assert run(page, "--check") == 0


def test_checking_changes_nothing_and_names_what_is_outdated(page: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(page, "--check") == 1
    said = capsys.readouterr().err
    assert "page.md: its tables: outdated" in said and "quality.png" in said and "speed-growth.png" in said
    assert page.read_text(encoding="utf-8") == TEXT and not list(page.parent.rglob("*.png"))


def test_a_figure_of_an_older_run_is_outdated(page: Path) -> None:
    run(page)
    path = page.parent / "results" / "speed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"note": "changed"}))
    assert Page(page, path.parent).outdated() == [str(path.with_name("speed-growth.png"))]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ("quality.json 9", "has no length '9'; it has 1024"),
        ("quality.json 1024 dense lasy", "has no policy 'lasy'"),
        ("none.json 1024", "none.json is not readable as a stored run"),
        ("speed.json 1024", "is no run of lazymlx eval"),
    ],
)
def test_a_marker_that_leads_nowhere(page: Path, wrong: str, said: str, capsys: pytest.CaptureFixture) -> None:
    page.write_text(TEXT.replace("quality.json 1024 dense lazy", wrong), encoding="utf-8")
    assert run(page, "--check") == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "text, said",
    [
        ("nothing", "has no blocks"),
        (TEXT.replace("<!-- /speed -->", ""), "speed: speed.json 4096 16384 --> is not closed"),
        (TEXT.replace("quality-figure", "quality-picture"), "no kind 'quality-picture'; known are speed"),
    ],
)
def test_a_page_without_whole_blocks(page: Path, text: str, said: str) -> None:
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        Page(page)
    with pytest.raises(UsageError, match="cannot be read"):
        Page(page.with_name("none.md"))


def test_runs_side_by_side_show_the_lengths_that_all_have() -> None:
    whole = json.loads((RESULTS / SPEED).read_text())
    part = whole | {"records": [r for r in whole["records"] if r["length"] >= 16384]}
    lines = speed_runs(whole, part).splitlines()
    assert lines[0] == "| run |  | 16,384 | 32,768 |" and len(lines) == 2 + 6
    assert lines[2].split(" | ")[2:] == lines[5].split(" | ")[2:]


def test_it_loads_no_mlx() -> None:
    code = "import sys; from lazymlx.tables import main; assert not main(['--check']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PAGES[0].parent)
    assert done.returncode == 0, done.stderr
    assert not [name for name in done.stdout.split() if name.split(".")[0] in ("mlx", "mlx_lm", "transformers")]


def judged_rows(path: Path, rows: list[dict]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def answer(index: int, policy: str, score: float, rise: float = 0.0, share: float = 0.5, point: str = "8:0.5") -> dict:
    point = "" if policy == "dense" else point
    of = {"task": "a/b", "index": index, "policy": policy, "point": point}
    return {**of, "score": score, "nats_rise": rise, "prefill_fraction": share}


def test_answers_stand_beside_the_dense_models(tmp_path: Path) -> None:
    """Each prompt with itself, however the rows are ordered."""
    rows = [answer(1, "lazy", 0.0, 0.1), *(answer(n, "dense", 1.0) for n in (2, 1)), answer(2, "lazy", 1.0, 0.3)]
    path = judged_rows(tmp_path / "run.jsonl.gz", rows)
    heads, body = judged.table(judged.read(path), {"a/b": "facts"})
    assert heads == ["", "FLOP-ideal", "facts", "nats a token"]
    assert body[0] == ["dense", "1.00x", "100.0 (n = 2)", "-"]
    assert body[1] == ["lazy 8:0.5", "2.00x", "-50.0 [-100.0, +0.0]", "0.200 [0.100, 0.300]"]
    (tmp_path / "page.md").write_text("<!-- judged: run.jsonl.gz a/b=facts -->\n<!-- /judged -->\n", encoding="utf-8")
    assert main([str(tmp_path / "page.md"), "--results", str(tmp_path)]) == 0
    assert "| lazy 8:0.5 | 2.00x | -50.0" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_of_several_points_those_not_told_apart_from_dense_stand_in_parentheses(tmp_path: Path) -> None:
    """One misses every second answer and one none; a table of one point has no such marks."""
    rows = [answer(n, "dense", 1.0) for n in range(20)]
    good = [answer(n, "lazy", 1.0, (-1) ** n * 0.2) for n in range(20)]
    bad = [answer(n, "lazy", n % 2, 0.3, 0.25, "4:0.2") for n in range(20)]
    judged_rows(tmp_path / "run.jsonl.gz", rows + good + bad)
    (tmp_path / "page.md").write_text("<!-- judged: run.jsonl.gz -->\n<!-- /judged -->\n", encoding="utf-8")
    assert main([str(tmp_path / "page.md"), "--results", str(tmp_path)]) == 0
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| lazy 8:0.5 | 2.00x | (+0.0 [+0.0, +0.0]) | (0.000 [-0." in text
    assert "| lazy 4:0.2 | 4.00x | -50.0 [-" in text and "| 0.300 [0.300, 0.300] |\n\nIn parentheses" in text
    _, body = judged.table(rows + good, {})
    assert not [cell for row in body[1:] for cell in row if cell.startswith("(")]


@pytest.mark.parametrize("rows", [[], [{"task": "a/b"}]])
def test_answers_that_lack_something_are_refused(tmp_path: Path, rows: list[dict]) -> None:
    with pytest.raises(UsageError, match="lacks"):
        judged.read(judged_rows(tmp_path / "run.jsonl.gz", rows))


def test_an_unknown_task_is_named(tmp_path: Path) -> None:
    rows = judged.read(judged_rows(tmp_path / "run.jsonl.gz", [answer(1, "dense", 1.0)]))
    with pytest.raises(UsageError, match="no task 'c/d'; it has a/b"):
        judged.table(rows, {"c/d": "facts"})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run\.jsonl\.gz cannot be read"):
        judged.read(tmp_path / "run.jsonl.gz")
