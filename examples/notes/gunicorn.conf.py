"""Norn gives each process a port of its own."""

import os

bind = f"127.0.0.1:{os.environ['PORT']}"
workers = 1
threads = 4
graceful_timeout = 20
