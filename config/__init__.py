"""What the operator said: the route file, read, checked and turned into frozen records.

Everything directly in this package is pure. `config.io` reads files and the environment.
"""
