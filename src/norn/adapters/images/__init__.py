"""Images for clusters: built by a program of this machine, kept by a registry."""
