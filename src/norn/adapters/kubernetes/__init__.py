"""The Kubernetes runtime: apps as Kubernetes Deployments of one namespace."""
