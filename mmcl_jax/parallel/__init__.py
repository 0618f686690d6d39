"""Devices, processes and the machine that a run computes on."""
