"""HTTP in, HTTP out. Read `gateway/pipeline.py` first.

Everything directly in this package is pure; `gateway.io` holds the sockets, processes and files.
"""
