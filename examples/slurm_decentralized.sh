#!/usr/bin/env bash
# Decentralized training under SLURM that continues when an agent fails.
#
# The batch step is not an agent; it hosts the list of remaining agents. --kill-on-bad-exit=0 and
# --no-kill keep srun from ending all tasks when one fails. Checkpoints require a shared folder.
#
#SBATCH --job-name=decentralized
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --no-kill
set -euo pipefail

readonly port=29400
python -m lightning_plugins.strategies.supervisor host "$port" "$(hostname -f)" &
readonly host=$!
trap 'kill "$host"' EXIT

LIGHTNING_PLUGINS_STORE=$(hostname -f):$port/$(openssl rand -hex 16)
export LIGHTNING_PLUGINS_STORE

srun --kill-on-bad-exit=0 python -m lightning_plugins fit \
    --config decentralized/digits \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices 1 \
    --trainer.strategy.on_peer_failure drop \
    --trainer.strategy.min_agents 2 \
    --trainer.callbacks.server false \
    "$@"
