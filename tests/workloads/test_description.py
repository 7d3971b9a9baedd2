"""Workload files: the examples load, and what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from bitwright.arch.errors import ConfigError
from bitwright.workloads import description

EXAMPLES = Path(__file__).parents[2] / "examples" / "workloads"
RUN = "static: {prompt_tokens: 4, output_tokens: 1}\n"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_loads(path: Path) -> None:
    workload = description.load(path)
    assert workload.output_tokens(EXAMPLES) > 0
    workload.choices(EXAMPLES)
    if workload.requests is None:
        assert workload.fixed_steps()
    else:
        assert workload.read_requests(EXAMPLES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sparsity: '2:4'\n",
            "must have exactly one of static, chunked, speculative, requests; has none; w.yaml, line 1",
        ),
        (
            RUN + "chunked: {prompt_tokens: 4, output_tokens: 1, chunk_tokens: 2}\n",
            "must have exactly one of static, chunked, speculative, requests; has static, chunked; w.yaml, line 1",
        ),
        (
            RUN + "sparsity: 2:4\n",
            'sparsity = 124: must be N:M in quotes such as "2:4" (YAML reads 2:4 without them as a number); '
            "w.yaml, line 2",
        ),
        (
            RUN + "sparsity: '4:2'\n",
            "sparsity = '4:2': must be N:M such as 2:4 with N < M (sparsity = 4:2: must keep fewer than 2); "
            "w.yaml, line 2",
        ),
        (
            RUN + "experts: {trace: a.json, shares: [1]}\n",
            "experts: must have exactly one of trace, shares; w.yaml, line 2",
        ),
        (
            "requests: {file: r.csv, sequences: 8, step_tokens: 4}\n",
            "requests: step_tokens = 4: must be at least sequences = 8, which all decode one token a step; "
            "w.yaml, line 1",
        ),
        (
            "speculative:\n  prompt_tokens: 4\n  output_tokens: 1\n  drafts: 2\n  acceptance: 1.5\n",
            "speculative.acceptance = 1.5: must be less than or equal to 1; w.yaml, line 5",
        ),
        (
            "static: {prompt_tokens: 4.0, output_tokens: 1}\n",
            "static.prompt_tokens = 4.0: must be a valid integer; w.yaml, line 1",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_key_and_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        description.load(path)
    assert str(caught.value) == message


def test_a_missing_trace_and_request_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text("requests: {file: r.csv, sequences: 1}\nexperts: {trace: t.json}\n")
    workload = description.load(path)
    with pytest.raises(ConfigError, match=r"^.*r\.csv: no such file$"):
        workload.read_requests(tmp_path)
    with pytest.raises(ConfigError, match=r"^.*t\.json: no such file$"):
        workload.choices(tmp_path)
