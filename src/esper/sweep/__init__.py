"""Many runs: arms x seeds x environments, in processes of this machine or on a Ray cluster."""
