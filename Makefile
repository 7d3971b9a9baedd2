# Two commands: `make sweep` (the main job on a real model) and `make test`. The rest is for developers.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
TORCH_VENV := .venv-torch
STAMP := $(VENV)/.installed
STORE := results/first-sweep
FUZZ_SECONDS := 600
FUZZ_SEED := 1
PE_GROUPS := 1000000

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1 \2/p' Makefile | while read -r target what; do printf '  make %-15s %s\n' "$$target" "$$what"; done

needs:
	@missing=""; \
	for tool in python3.11:python3.11 g++:g++ perl:perl git:git; do \
	  command -v $${tool%%:*} >/dev/null || missing="$$missing $${tool##*:}"; done; \
	if command -v python3.11 >/dev/null; then \
	  python3.11 -c 'import venv, ensurepip' 2>/dev/null || missing="$$missing python3.11-venv"; \
	  python3.11 -c 'import ctypes, os, sysconfig as s; name = s.get_config_var("INSTSONAME"); \
	path = os.path.join(s.get_config_var("LIBDIR"), name); ctypes.CDLL(path if os.path.exists(path) else name)' 2>/dev/null \
    || missing="$$missing libpython3.11"; \
	fi; \
	if [ -n "$$missing" ]; then echo "missing:$$missing; run: apt-get install$$missing" >&2; exit 3; fi

$(STAMP): pyproject.toml requirements.txt requirements-nodeps.txt
	@$(MAKE) --no-print-directory needs
	@test -x $(BIN)/python || python3.11 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --no-build-isolation -e ".[hdl,formal,gowin,onnx,test]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nodeps.txt
	@$(BIN)/python -m compileall -q arch cli fpga reports rtl sim workloads  # as pip does with what is not editable
	@touch $@

install: $(STAMP) ## make .venv with everything (once)

sweep: $(STAMP) ## the main job: the first design-space sweep and its report
	$(BIN)/bitwright sweep examples/first-sweep.yaml --store $(STORE)
	$(BIN)/bitwright report $(STORE) -o $(STORE)/report.html
	@echo "open $(STORE)/report.html"

test: $(STAMP) lint types ## lint, types and all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs

# torch first and alone, at its exact version: nothing installed after it may pull another.
$(TORCH_VENV)/.installed: pyproject.toml requirements.txt requirements-torch.txt
	@$(MAKE) --no-print-directory needs
	@test -x $(TORCH_VENV)/bin/python || python3.11 -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check "$$(sed -nE 's/^(torch==[^ ]+).*/\1/p' requirements-torch.txt)"
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.txt "setuptools>=77" wheel
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.txt -r requirements-torch.txt
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --no-build-isolation -e .
	@touch $@

test-torch: $(TORCH_VENV)/.installed ## user models against transformers, in its own .venv-torch (1.5 GB)
	$(TORCH_VENV)/bin/python -m pytest tests/torch -rs

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy on the installed package, not on the source tree
	@rm -rf build/types && mkdir -p build/types
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p bitwright

costs: $(STAMP) ## synthesise every PE and unit again, PEs at three clocks: arch/costs/nangate45.json, streams_nangate45.json
	$(BIN)/python -m bitwright.rtl.asic.costs
	$(BIN)/python -m bitwright.rtl.asic.stream_costs

campaign-array: $(STAMP) ## cycles of 16x16, 8x64 and 32x32 arrays, RTL against simulator (first build 10 to 15 minutes)
	$(BIN)/python -m pytest tests/cross/campaign_array_cycles.py

campaign-pe: $(STAMP) ## PEs, RTL against golden: 10^8 lane-steps and PE_GROUPS=1000000 groups each, every pair of codes (hours; goes on)
	$(BIN)/python -m bitwright.rtl.bench.stream.campaign --groups $(PE_GROUPS)
	$(BIN)/python tests/rtl/pe/campaign_bit_serial.py --groups $(PE_GROUPS)

campaign-rtl: $(STAMP) ## SmolLM2 layers on the accelerator's RTL, 14 machines and formats, 6 memories, and the 32x32 build (hours)
	$(BIN)/python -m pytest -s tests/cross/accelerator/campaign_rtl.py

PES = $(shell $(BIN)/python -c 'from bitwright.arch import pe; print(*pe.all_names())')
# The default tile of lut has 512 MACs a step: mutants and netlist take a small one with its table unit inside.
SMALL_PES = $(filter-out lut,$(PES)) lut:m=1,n=2,variant=full,precompute=true,pipeline=3
# Every PE, whatever becomes of the ones before; fails at the end if any did.
EACH = failed=""; for pe in $(SMALL_PES); do $(BIN)/python -m bitwright.rtl.bench.stream.$(1) $$pe --write $(2) || failed="$$failed $$pe"; done; \
	  test -z "$$failed" || { echo "not all is well:$$failed" >&2; exit 1; }

campaign-mutants: $(STAMP) ## 240 mutants of every PE, killed or proved equivalent (two hours; fails for unexplained ones)
	@$(call EACH,mutants,--prove-seconds 30)

campaign-netlists: $(STAMP) ## every PE mapped to Nangate45 under its bench (half an hour)
	@$(call EACH,netlists,)

campaign-nodes: $(STAMP) ## SG13G2=file.lib ASAP7=file.lib (yours; also .gz, .xz): rows of every PE; timing and energy terms against OpenSTA (an hour)
	@for file in "$(SG13G2)" "$(ASAP7)"; do test -f "$$file" || { \
	  echo "campaign-nodes: no file '$$file': give both libraries, make campaign-nodes SG13G2=file.lib ASAP7=file.lib" >&2; exit 2; }; done
	$(BIN)/python -m bitwright.rtl.asic.stream_costs --liberty $(SG13G2) --name sg13g2 --clock-mhz 90
	$(BIN)/python -m bitwright.rtl.asic.stream_costs --liberty $(ASAP7) --name asap7 --clock-mhz 280
	LIBERTY="$(SG13G2) $(ASAP7)" $(BIN)/python -m pytest -s tests/rtl/asic/campaign_nodes.py tests/rtl/asic/test_power_opensta.py

campaign-proofs: $(STAMP) ## the formal proofs of every PE and of a machine's control (half an hour)
	$(BIN)/bitwright prove all --write
	$(BIN)/bitwright prove int8-4x4 --timeout 900
	$(BIN)/python -m pytest tests/rtl/formal/campaign_control.py

campaign-simpy: $(STAMP) ## Llama-2-7B whole on the SimPy engines, every count against the fast ones (two minutes)
	$(BIN)/python -m pytest -s tests/sim/campaign_simpy.py

campaign-dram: $(STAMP) ## row hits and bandwidth against Ramulator 2.1, built from RAMULATOR=folder (apt: cmake libyaml-cpp-dev libfmt-dev; 10 minutes)
	$(BIN)/python tests/sim/dram/campaign_dram.py $(RAMULATOR)

bench-peers: $(STAMP) ## beside scalesim, zigzag-dse, GenZ (own environments, 2 GB) and MAESTRO=program, yours (an hour)
	$(BIN)/python tests/bench/bench_peers.py --folder build/peers $(if $(MAESTRO),--maestro $(MAESTRO)) --kept build/peers/kept

campaign-fuzz: $(STAMP) ## damaged files against every reader (FUZZ_SECONDS=600, FUZZ_SEED=1)
	$(BIN)/python tests/workloads/campaign_fuzz_files.py --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

campaign-sizing: $(STAMP) ## PEs and the largest arrays on FPGA parts: arch/costs/fpga.json (half a day; goes on; 400 MB of tools)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --no-build-isolation -e ".[fpga]"
	$(BIN)/python -m bitwright.fpga.sizing

campaign-fpga: $(STAMP) ## a decode step of SmolLM2 through a board's link, every family of machines on the board top (10 minutes)
	$(BIN)/python -m pytest -s tests/fpga/campaign_fpga.py

fpga: $(STAMP) ## bitstreams: arrays on iCEBreaker, Tang Nano 9K and ULX3S; int8, shift-add, LUT and bit-serial accelerators on ULX3S-85F (an hour and a half; 400 MB of tools)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.txt --no-build-isolation -e ".[fpga]"
	$(BIN)/bitwright fpga build --board tang-nano-9k --machine int8-2x2 --array
	$(BIN)/bitwright fpga build --board icebreaker --machine int8-2x2 --array
	$(BIN)/bitwright fpga build --board ulx3s-85f --machine int8-4x4 --array
	$(BIN)/bitwright fpga build --board ulx3s-85f --machine examples/shift-add-13x13-board.yaml
	$(BIN)/bitwright fpga build --board ulx3s-85f --machine examples/int8-12x8-board.yaml
	$(BIN)/bitwright fpga build --board ulx3s-85f --machine examples/lut-2x20-board.yaml
	$(BIN)/bitwright fpga build --board ulx3s-85f --machine examples/bit-serial-5x5-board.yaml

campaign-properties: $(STAMP) ## every property-based test with new random cases; `make test` takes the same ones every time (half an hour)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m hypothesis --hypothesis-profile explore

docs: $(STAMP) ## write the generated pages and schemas again
	@mkdir -p build
	$(BIN)/python docs/schemas.py
	$(BIN)/python docs/one_layer.py > build/one-layer.md && mv build/one-layer.md docs/one-layer.md
	$(BIN)/python docs/format_list.py > build/format-list.md && mv build/format-list.md docs/format-list.md
	$(BIN)/python docs/isa.py > build/isa.md && mv build/isa.md docs/isa.md
	$(BIN)/python docs/registers.py > build/registers.md && mv build/registers.md docs/registers.md
	$(BIN)/python docs/pes.py > build/pes.md && mv build/pes.md docs/pes.md
	$(BIN)/python docs/stream_costs.py docs/stream-costs.svg > build/stream-costs.md && mv build/stream-costs.md docs/stream-costs.md
	$(BIN)/python docs/real_data.py docs/real-data.svg > build/real-data.md && mv build/real-data.md docs/real-data.md
	$(BIN)/python docs/stream_nodes.py > build/stream-nodes.md && mv build/stream-nodes.md docs/stream-nodes.md
	$(BIN)/python docs/fpga_sizing.py docs/fpga-sizing.svg > build/fpga-sizing.md && mv build/fpga-sizing.md docs/fpga-sizing.md
	$(BIN)/python docs/pe_library.py > build/pe-library.md && mv build/pe-library.md docs/pe-library.md
	$(BIN)/python docs/qsnr.py > build/qsnr.md && mv build/qsnr.md docs/qsnr.md
	$(BIN)/python docs/reproductions.py > build/reproductions.md && mv build/reproductions.md docs/reproductions.md

traces: $(STAMP) ## cycles of SmolLM2's real codes beside the Gaussian guess: docs/traces.md (six minutes)
	@mkdir -p build
	$(BIN)/python docs/traces.py > build/traces.md && mv build/traces.md docs/traces.md

accuracy: $(STAMP) ## perplexity of SmolLM2 under 62 format policies: docs/accuracy.md and its picture (15 minutes; goes on)
	@mkdir -p build
	$(BIN)/python docs/accuracy.py results/accuracy > build/accuracy.md && mv build/accuracy.md docs/accuracy.md
	$(BIN)/python -m bitwright.reports.screenshot results/accuracy/accuracy.html docs/accuracy.png --width 1400 --height 900 --sections accuracy

picture: $(STAMP) ## the README's picture, from the report of `make sweep`
	$(BIN)/python -m bitwright.reports.screenshot $(STORE)/report.html docs/report.png --width 1400 --height 1330 --sections tradeoffs,breakdown

clean: ## remove what make made, but .venv and results
	rm -rf build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help needs install sweep test test-torch lint types costs campaign-array campaign-pe campaign-rtl campaign-mutants campaign-netlists campaign-nodes campaign-proofs campaign-simpy campaign-dram bench-peers campaign-fuzz fpga campaign-fpga campaign-properties docs traces accuracy picture clean campaign-sizing
