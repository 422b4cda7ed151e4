"""The benchmark of sessions, small: all ways follow one transcript, and JSON comes last."""

import json
import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_session.py"


def test_it_prints_a_table_and_a_line_of_json(capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    arguments = ["--lengths", "64", "--questions", "2", "--repeats", "1", "--max-tokens", "3", "--schedules", "auto"]
    assert main([*arguments, "4:0.2"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    results = {result["name"]: result for result in json.loads(last)["results"]}
    assert list(results) == ["lazymlx 9:0.2", "lazymlx 4:0.2", "mlx-lm, prompt cache", "mlx-lm, no cache"]
    for name, result in results.items():
        assert any(name in line for line in lines)
        assert set(result["ttft_s"]) == {"1", "2"} and min(result["ttft_s"].values()) > 0
        assert result["disk_bytes"] > 64 * 1000
    assert results["mlx-lm, no cache"]["read_s"] is None


def test_random_weights_can_be_asked_too(capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    arguments = ["--lengths", "64", "--questions", "2", "--repeats", "1", "--max-tokens", "2"]
    assert main([*arguments, "--shape", "demo-12x384", "--schedules", "3:0.5"]) == 0
    content = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert content["model"]["random"] and content["results"][0]["name"] == "lazymlx 3:0.5"
