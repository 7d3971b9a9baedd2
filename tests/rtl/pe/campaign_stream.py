"""Campaign of the streaming PEs: every pair of codes, random and corner groups, a real model's operands, with cycles.

    .venv/bin/python tests/rtl/pe/campaign_stream.py [--pe int8-mac lut:m=1 ...] [--groups 1000000]
        [--lane-steps 100000000] [--seed 1]

Goes on where it was stopped, writes docs/evidence, and stops at the first difference (MismatchError that says how to
replay the part). rtl/bench/stream/campaign.py has the rules.
"""

from __future__ import annotations

from bitwright.rtl.bench.stream.campaign import main

if __name__ == "__main__":
    raise SystemExit(main())
