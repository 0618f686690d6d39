"""Many runs: on this machine, on SLURM, or on Kubernetes."""
