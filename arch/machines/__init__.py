"""The named machines, one YAML file each."""
