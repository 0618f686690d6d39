"""Many runs: here, on SLURM, or on Kubernetes."""
