"""A server that speaks Kubernetes' API."""

from kubernetes_stub import kubernetes  # noqa: F401  # a fixture
