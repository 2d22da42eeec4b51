"""The part of the configuration that touches the world: files, environment, secrets."""
