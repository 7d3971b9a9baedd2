"""Writes docs/schemas/machine.json, space.json and workload.json, the JSON Schema of the config files."""

import json
from pathlib import Path

from bitwright.arch.machine import Machine
from bitwright.arch.space import Space
from bitwright.workloads.description import Workload

for name, model in (("machine", Machine), ("space", Space), ("workload", Workload)):
    target = Path(__file__).parent / "schemas" / f"{name}.json"
    target.write_text(json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n")
