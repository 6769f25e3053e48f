"""The configuration of an experiment, a TOML file."""
