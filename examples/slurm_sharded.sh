#!/usr/bin/env bash
# FSDP2 over nodes, tensor parallelism within each, under SLURM: one task per GPU.
#
# data_parallel_size x tensor_parallel_size is the number of tasks. Checkpoints require a shared folder.
#
#SBATCH --job-name=sharded
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=2
#SBATCH --gpus-per-node=2
set -euo pipefail

srun python -m lightning_plugins fit \
    --config language_model/llama_7b_fsdp2_tp_c4 \
    --trainer.num_nodes "$SLURM_NNODES" \
    --trainer.devices 2 \
    --trainer.strategy.data_parallel_size "$SLURM_NNODES" \
    --trainer.strategy.tensor_parallel_size 2 \
    "$@"
