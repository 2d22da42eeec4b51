"""Sockets, processes, files: the shell around the pure gateway."""
