"""An example backend: notes, one set per person, behind the gateway.

It authenticates nobody. It reads the identity fields that the gateway sets, and nothing else.
"""
