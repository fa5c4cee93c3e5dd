"""The front proxy: holds an app's port and passes requests on to the replicas that are live, without losing one.

A process of its own under the same shim as the app's: `python -m norn.adapters.local.proxy`.
"""
