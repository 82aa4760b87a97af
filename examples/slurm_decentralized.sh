#!/usr/bin/env bash
# Agents of decentralized training under SLURM that go on when one of them is lost.
#
# The batch step is no agent: it hosts the list of the living. srun must not end all tasks when one
# dies, hence --kill-on-bad-exit=0 and --no-kill. Checkpoints go to a folder that all nodes see.
#
#SBATCH --job-name=decentralized
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --no-kill
set -euo pipefail

readonly port=29400
python -m lightning_plugins.strategies.supervisor host "$port" &
readonly host=$!
trap 'kill "$host"' EXIT

LIGHTNING_PLUGINS_STORE=$(hostname -f):$port
export LIGHTNING_PLUGINS_STORE

srun --kill-on-bad-exit=0 python -m lightning_plugins fit \
    --config decentralized/digits \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices 1 \
    --trainer.strategy.on_peer_failure drop \
    --trainer.strategy.min_agents 2 \
    --trainer.callbacks.server false \
    "$@"
