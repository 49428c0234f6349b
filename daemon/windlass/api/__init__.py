"""The HTTP API on 127.0.0.1: how people and tools look at the eight hops and ask for something.

It reads the store and writes requests; it never acts on a backend by itself.
"""
