"""Capsule networks with dynamic routing (Sabour, Frosst & Hinton 2017)."""

import os

# Before torch is imported: OpenMP threads that spin while they wait starve each other on a busy
# machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
