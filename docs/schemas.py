"""Writes docs/schemas/machine.json and space.json, the JSON Schema of the two config files."""

import json
from pathlib import Path

from bitwright.arch.machine import Machine
from bitwright.arch.space import Space

for name, model in (("machine", Machine), ("space", Space)):
    target = Path(__file__).parent / "schemas" / f"{name}.json"
    target.write_text(json.dumps(model.model_json_schema(), indent=1, sort_keys=True) + "\n")
